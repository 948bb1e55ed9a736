#pragma once

#include <vector>

#include "compute/device.hpp"
#include "model/config.hpp"

namespace llama3d {

/// Cosines and sines of the rotary angles, computed in fp32 as Hugging Face does: `positions` rows of D/2
/// cosines, then D/2 sines. Includes Llama 3.1's scaling: long wavelengths are stretched by `factor`, short
/// ones kept, those between interpolated.
std::vector<float> rope_table(const ModelConfig& config, std::int64_t positions);
/// The same to a device: table is (P, D) fp32. Waits for the stream.
void upload_rope_table(const ModelConfig& config, const Tensor& table, Device& device, Stream& stream);

}  // namespace llama3d
