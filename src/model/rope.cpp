#include "model/rope.hpp"

#include <cmath>
#include <cstring>
#include <numbers>

namespace llama3d {
namespace {

float scaled(float frequency, const RopeScaling& scaling) {
  const auto original = static_cast<float>(scaling.original_context);
  const auto low = static_cast<float>(scaling.low_frequency_factor);
  const auto high = static_cast<float>(scaling.high_frequency_factor);
  const auto factor = static_cast<float>(scaling.factor);
  const float wavelength = 2 * std::numbers::pi_v<float> / frequency;
  if (wavelength < original / high) return frequency;
  if (wavelength > original / low) return frequency / factor;
  const float smooth = (original / wavelength - low) / (high - low);
  return (1 - smooth) * frequency / factor + smooth * frequency;
}

}  // namespace

std::vector<float> rope_table(const ModelConfig& config, std::int64_t positions) {
  const std::int64_t half = config.head_dim / 2;
  std::vector<float> frequencies;
  for (std::int64_t i = 0; i < half; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(config.head_dim);
    const float frequency = 1.0f / std::pow(static_cast<float>(config.rope_theta), exponent);
    frequencies.push_back(config.rope_scaling ? scaled(frequency, *config.rope_scaling) : frequency);
  }
  std::vector<float> table;
  table.reserve(static_cast<std::size_t>(positions * config.head_dim));
  for (std::int64_t p = 0; p < positions; ++p) {
    for (const float f : frequencies) table.push_back(std::cos(static_cast<float>(p) * f));
    for (const float f : frequencies) table.push_back(std::sin(static_cast<float>(p) * f));
  }
  return table;
}

void upload_rope_table(const ModelConfig& config, const Tensor& table, Device& device, Stream& stream) {
  const std::vector<float> angles = rope_table(config, table.rows());
  const DeviceMemory staging = device.allocate_host(angles.size() * sizeof(float));
  std::memcpy(staging.get(), angles.data(), angles.size() * sizeof(float));
  device.upload(table, staging.get(), stream);
  stream.synchronize();
}

}  // namespace llama3d
