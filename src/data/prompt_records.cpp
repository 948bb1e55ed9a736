#include "data/prompt_records.hpp"

#include <utility>

#include "base/error.hpp"
#include "base/utf8.hpp"
#include "data/detect_format.hpp"
#include "data/json_input.hpp"

namespace llama3d {
namespace {

constexpr std::size_t bad_records_shown = 5;
constexpr std::size_t largest_record = std::size_t{256} << 20;

PromptRecord prompt_record(const std::string& text, InputFormat format, const std::string& place) {
  if (find_invalid_utf8(text) != std::string::npos) throw BadRecord("no valid UTF-8");
  PromptRecord record{parse_conversation(text, format, LastAnswer::optional), {}, place};
  if (record.prompt.back().role == Role::assistant) {
    record.label = std::move(record.prompt.back().content);
    record.prompt.pop_back();
  }
  return record;
}

}  // namespace

void PromptRecords::leave_out(const std::string& place, const std::string& reason) {
  ++bad;
  if (first_bad.size() < bad_records_shown) first_bad.push_back(fmt::format("{}: {}", place, reason));
}

PromptRecords read_prompt_records(const std::filesystem::path& path, InputFormat format, std::int64_t most) {
  if (format == InputFormat::automatic) format = detect_format(path, "text", largest_record);
  if (!holds_conversations(format))
    throw DataError(fmt::format("{} holds {}, no conversations; give Alpaca or ShareGPT records",
                                path.string(), word_of(format)));
  const auto input = open_json_records(path, largest_record);
  PromptRecords result;
  for (RawText raw; (most <= 0 || std::ssize(result.records) < most) && input->next(raw); raw = {}) {
    const std::string place = place_of(path, raw.line, raw.record);
    try {
      result.records.push_back(prompt_record(raw.text, format, place));
    } catch (const BadRecord& bad) {
      result.leave_out(place, bad.what());
    }
  }
  if (result.records.empty())
    throw DataError(result.first_bad.empty()
                        ? fmt::format("{} holds no records; give Alpaca or ShareGPT records", path.string())
                        : fmt::format("{} (and so for all {} records of the file); check `format {}`",
                                      result.first_bad.front(), result.bad, word_of(format)));
  return result;
}

}  // namespace llama3d
