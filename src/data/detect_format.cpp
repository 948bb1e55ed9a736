#include "data/detect_format.hpp"

#include "base/error.hpp"
#include "data/json_input.hpp"

namespace llama3d {
namespace {

constexpr int records_looked_at = 100;

}  // namespace

InputFormat detect_format(const std::filesystem::path& path, const std::string& text_field,
                          std::size_t largest_record) {
  const std::string extension = path.extension().string();
  if (extension != ".json" && extension != ".jsonl" && extension != ".ndjson") return InputFormat::text;
  std::error_code ignored;
  // A pipe can't be read twice.
  if (std::filesystem::is_fifo(path, ignored)) return InputFormat::jsonl;
  const auto input = open_json_records(path, largest_record);
  RawText record;
  int looked_at = 0;
  for (; looked_at < records_looked_at && input->next(record); ++looked_at)
    if (const InputFormat format = format_of_record(record.text, text_field);
        format != InputFormat::automatic)
      return format;
  if (looked_at == 0) return InputFormat::jsonl;
  throw DataError(
      fmt::format("{}: its first records are of no known format (none is a JSON object with \"{}\", with "
                  "\"instruction\" and \"output\", with \"conversations\" or \"messages\"); name the field "
                  "that holds the text with `text_field`, or the format with `format`",
                  path.string(), text_field));
}

}  // namespace llama3d
