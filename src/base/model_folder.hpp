#pragma once
// Files that others have made: read within bounds, and of a Hugging Face folder nothing that lies outside of
// it.

#include <cstdint>
#include <filesystem>
#include <string>

namespace llama3d {

/// A whole file of at most `most` bytes. Throws std::runtime_error with the reason alone: it is missing, no
/// file, larger.
std::string read_file(const std::filesystem::path& path, std::uintmax_t most);

/// Whether it names a file of whatever folder it is in: no path, not "." or "..".
bool is_plain_file_name(const std::string& name);

/// The path of the folder's file `name`. Throws DataError unless `name` is a plain file name and what it
/// stands for, links followed, is a regular file of the folder. A snapshot of the Hugging Face hub's cache
/// (models--X/snapshots/REVISION) consists of links to files of models--X/blobs, which count as its own.
std::filesystem::path model_file(const std::filesystem::path& folder, const std::string& name);

/// Its text. Throws DataError, also for more than 100 MB.
std::string read_model_file(const std::filesystem::path& folder, const std::string& name);

}  // namespace llama3d
