#include "options/settings.hpp"

#include <fmt/ranges.h>

#include <charconv>
#include <cmath>
#include <cstdint>
#include <string_view>

#include "base/error.hpp"

namespace llama3d {
namespace {

/// The value of an option as people write it.
class ValueText final : public OptionVisitor {
 public:
  std::string text;

  void visit(std::string_view, std::string& value) override { text = value; }
  void visit(std::string_view, bool& value) override { text = fmt::format("{}", value); }
  void visit(std::string_view, int& value) override { text = fmt::format("{}", value); }
  void visit(std::string_view, std::int64_t& value) override { text = fmt::format("{}", value); }
  void visit(std::string_view, std::uint64_t& value) override { text = fmt::format("{}", value); }
  void visit(std::string_view, double& value) override { text = fmt::format("{}", value); }
  void visit(std::string_view, std::vector<int>& value) override {
    text = fmt::format("{}", fmt::join(value, ","));
  }
  void visit(std::string_view, const WordValue& value) override { text = value.word(); }
};

[[noreturn]] void refuse(std::string_view name, const std::string& value, std::string_view right) {
  throw ConfigurationError(fmt::format("`{} {}`: must be {}", field_of(name), value, right));
}

}  // namespace

StepRange StepRange::parse(const std::string& text) {
  if (text.empty()) return {};
  StepRange range;
  const auto colon = text.find(':');
  const auto read = [](std::string_view word, std::int64_t& value) {
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
    return error == std::errc() && end == word.data() + word.size();
  };
  const std::string_view first = std::string_view(text).substr(0, colon);
  const std::string_view last = colon == std::string::npos ? first : std::string_view(text).substr(colon + 1);
  if (!read(first, range.first) || !read(last, range.last) || range.first < 1 || range.last < range.first)
    throw ConfigurationError(
        fmt::format("`profile_steps {}`: not a range of steps; give FIRST:LAST, such as 10:12", text));
  return range;
}

double lowest_learning_rate(const TrainSettings& s) {
  if (!std::isnan(s.min_learning_rate)) return s.min_learning_rate;
  return s.learning_rate < TrainSettings().learning_rate ? s.learning_rate / 10 : 3e-5;
}

const PrecisionRecipe* read_precision(std::string_view name, std::string_view word) {
  if (const PrecisionRecipe* recipe = find_precision(word)) return recipe;
  std::vector<std::string_view> words;
  for (const PrecisionRecipe& recipe : precision_recipes()) words.push_back(recipe.name);
  throw ConfigurationError(
      fmt::format("`{} {}`: unknown; use {}", field_of(name), word, fmt::join(words, " or ")));
}

void check_comm_timeout(double seconds) {
  TrainSettings settings;
  settings.comm_timeout = seconds;
  const Option& option = *find_option("comm-timeout", commands::train);
  if (!option.within(settings)) refuse(option.name, fmt::format("{}", seconds), option.bounds);
}

void check_settings(const TrainSettings& s, unsigned command) {
  StepRange::parse(s.profile_steps);
  for (const Option& option : option_table()) {
    if (!(option.commands & command) || !option.within || option.within(s)) continue;
    TrainSettings shown = s;
    shown.min_learning_rate = lowest_learning_rate(s);
    ValueText value;
    option.member(value, option.name, shown);
    refuse(option.name, value.text, option.bounds);
  }
  if (!s.load.empty() && !s.resume.empty() && s.resume != "auto")
    throw ConfigurationError(
        fmt::format("`load {}` with `resume {}`: `resume` goes on with a run, `load` starts a new one from "
                    "weights; give one of them (`load` beside `resume` auto is for the first start)",
                    s.load, s.resume));
}

}  // namespace llama3d
