#pragma once
// Instruction records as questions to answer: what a model is asked to predict.

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "data/conversation.hpp"

namespace llama3d {

struct PromptRecord {
  Conversation prompt;  ///< all but the last answer
  std::string label;    ///< that; empty where there is none
  std::string place;    ///< file and line, and in an array the record's number
};

struct PromptRecords {
  std::vector<PromptRecord> records;
  std::int64_t bad = 0;                ///< records left out
  std::vector<std::string> first_bad;  ///< place and reason of some

  /// Counts a bad record.
  void leave_out(const std::string& place, const std::string& reason);
};

/// The first `most` good records (0: all) of a JSON file, in order. Throws DataError for a file that can't be
/// read, one without conversations, and one of which no record can be used.
PromptRecords read_prompt_records(const std::filesystem::path& path, InputFormat format, std::int64_t most);

}  // namespace llama3d
