#pragma once
// Files of a Hugging Face folder, which others have made: nothing outside of it is read.

#include <filesystem>
#include <string>

namespace llama3d {

/// The path of the folder's file `name`. Throws DataError unless `name` is a plain file name and what it
/// stands for, links followed, is a regular file of the folder. A snapshot of the Hugging Face hub's cache
/// (models--X/snapshots/REVISION) consists of links to files of models--X/blobs, which count as its own.
std::filesystem::path model_file(const std::filesystem::path& folder, const std::string& name);

/// Its text. Throws DataError, also for more than 100 MB.
std::string read_model_file(const std::filesystem::path& folder, const std::string& name);

}  // namespace llama3d
