#pragma once

#include <filesystem>

#include "data/conversation.hpp"

namespace llama3d {

/// Of a file whose name ends in .json, .jsonl or .ndjson what its first records look like; of all others
/// text. Throws DataError for a file that can't be read, and when the records look like no format there is.
InputFormat detect_format(const std::filesystem::path& path, const std::string& text_field,
                          std::size_t largest_record);

}  // namespace llama3d
