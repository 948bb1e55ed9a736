#pragma once
// The files beside the tensors of an export.

#include <filesystem>
#include <string>
#include <vector>

#include "convert/export_shards.hpp"

namespace llama3d {

/// Writes config.json, generation_config.json, the index and the tokenizer. Returns notes for people. Throws
/// DataError where one can't be written.
std::vector<std::string> write_companions(const ExportOptions& options, const WeightSource& source,
                                          const std::vector<Shard>& shards,
                                          const std::filesystem::path& folder);

}  // namespace llama3d
