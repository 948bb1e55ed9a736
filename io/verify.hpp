#pragma once
// What --verify checks and says of a file. For describe.cpp.

#include <filesystem>
#include <string>

#include "io/checkpoint/checkpoint_file.hpp"
#include "io/hdf5/hdf5.hpp"
#include "io/safetensors/safetensors.hpp"
#include "io/tokens/token_file.hpp"

namespace llama3d::io {

/// Each reads everything, compares the checksums that there are, and returns lines that say what was checked
/// and what has no checksum. Throws what the readers throw, or IoError, for what is damaged.
std::string verify_checkpoint(const CheckpointReader& reader);
std::string verify_tokens(const TokenFileReader& reader);
std::string verify_metrics(hid_t file);
std::string verify_safetensors(const SafetensorsReader& reader);

}  // namespace llama3d::io
