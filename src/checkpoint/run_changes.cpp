#include "checkpoint/run_changes.hpp"

#include <fmt/ranges.h>

#include <charconv>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/error.hpp"
#include "base/json.hpp"
#include "base/printable.hpp"

namespace llama3d {
namespace {

using nlohmann::json;

template <class Value>
void compare(std::vector<std::string>& lines, const char* name, const std::optional<Value>& before,
             const std::optional<Value>& now) {
  if (!before || before == now) return;
  lines.push_back(
      fmt::format("warning: {} was {} and is {} now: the samples that follow are others than they would be",
                  name, json_excerpt(json(*before)), json_excerpt(now ? json(*now) : json())));
}

/// Empty where there are none, or they are damaged.
json options_of(const RunRecord& run) {
  try {
    return parse_json_object(run.configuration);
  } catch (const JsonError&) {
    return json::object();
  }
}

/// Runs of before recorded numbers as they were written.
bool same_value(const json& left, const json& right) {
  if (left == right || !left.is_string() || !right.is_string()) return left == right;
  const auto number = [](const std::string& text) -> std::optional<double> {
    double value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
    return value;
  };
  const auto a = number(left.get_ref<const std::string&>()), b = number(right.get_ref<const std::string&>());
  return a && b && *a == *b;
}

std::string text_at(const json& options, const char* name) {
  const json* value = find_json_member(options, name);
  return value && value->is_string() ? value->get<std::string>() : std::string();
}

}  // namespace

std::vector<std::string> changed_samples(const RunRecord& before, const RunRecord& now) {
  std::vector<std::string> lines;
  if (differ(before.tokenizer, now.tokenizer))
    lines.push_back(
        fmt::format("warning: `data` was made with {}, the checkpoint was trained on tokens of {}",
                    printable(now.tokenizer.to_string()), printable(before.tokenizer.to_string())));
  if (before.data && before.data != now.data)
    lines.emplace_back("warning: the token files are others than before: the samples that follow are too");
  compare(lines, "seed", before.seed, now.seed);
  compare(lines, "sequence", before.sequence, now.sequence);
  compare(lines, "packing", before.packing, now.packing);
  compare(lines, "separate_documents", before.separate_documents, now.separate_documents);
  compare(lines, "valid_fraction", before.valid_fraction, now.valid_fraction);
  return lines;
}

std::vector<std::string> changed_options(const RunRecord& record_before, const RunRecord& record_now,
                                         std::span<const std::string_view> names) {
  std::vector<std::string> lines;
  json before = options_of(record_before), now = options_of(record_now);
  if (const std::string was = text_at(before, "load"), is = text_at(now, "load"); !is.empty() && was != is)
    lines.push_back(fmt::format(
        "warning: `load {}` is not what this run began with ({}): give another `output_dir` to start "
        "from it",
        printable(is), was.empty() ? "random weights" : printable(was)));
  // Resolved, where the option says "automatic".
  const auto resolved = [](const RunRecord& run) {
    return run.global_batch ? json(*run.global_batch) : json();
  };
  before["global-batch-size"] = resolved(record_before);
  now["global-batch-size"] = resolved(record_now);
  const auto word = [](const json& value) {
    return value.is_string() ? printable(value.get_ref<const std::string&>()) : json_excerpt(value);
  };
  std::vector<std::string> changes;
  for (const std::string_view option : names)
    if (before.contains(option) && now.contains(option) && !same_value(before[option], now[option]))
      changes.push_back(
          fmt::format("`{}` was {} and is {}", field_of(option), word(before[option]), word(now[option])));
  if (!changes.empty())
    lines.push_back(fmt::format("changed since the checkpoint: {}", fmt::join(changes, ", ")));
  return lines;
}

}  // namespace llama3d
