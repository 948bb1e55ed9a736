#pragma once

#include <filesystem>
#include <string>

namespace llama3d {

/// What a file or folder of ours holds, as lines of text for a terminal: a checkpoint folder or its
/// checkpoint.h5 (tensors, attributes), a rank file, a token file, a metrics file (rows; first and last of
/// each table), a safetensors file or folder. With `verify` all of the data is read, its checksums are
/// compared, and what has none is named. Throws DataError, naming file and reason, for anything foreign or
/// damaged.
std::string describe_file(const std::filesystem::path& path, bool verify = false);

}  // namespace llama3d
