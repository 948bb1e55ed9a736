#include "options/option.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include "options/option_rows.hpp"

namespace llama3d {

using namespace commands;

unsigned command_of(std::string_view word) {
  constexpr std::array<std::pair<std::string_view, unsigned>, 9> words{{{"train", train},
                                                                        {"eval", eval},
                                                                        {"plan", plan},
                                                                        {"bench", bench},
                                                                        {"generate", generate},
                                                                        {"tokenize", tokenize},
                                                                        {"import", import_weights},
                                                                        {"export", export_weights},
                                                                        {"inspect", inspect}}};
  for (const auto& [name, bit] : words)
    if (name == word) return bit;
  return 0;
}

std::string_view title_of(OptionGroup group) {
  switch (group) {
    case OptionGroup::model: return "Model";
    case OptionGroup::data: return "Data";
    case OptionGroup::output: return "Output";
    case OptionGroup::batch: return "Batch and length of a run";
    case OptionGroup::parallelism: return "Parallelism";
    case OptionGroup::memory: return "Precision and memory";
    case OptionGroup::optimizer: return "Optimizer";
    case OptionGroup::validation: return "Validation";
    case OptionGroup::checkpoints: return "Checkpoints";
    case OptionGroup::generation: return "Generation";
    case OptionGroup::measurement: return "Measurement";
    case OptionGroup::machine: return "Machine";
    case OptionGroup::look: return "Looking before and at a run";
  }
  return "";
}

std::span<const Option> option_table() {
  static const std::vector<Option> table = [] {
    std::vector<Option> all = training_options();
    std::ranges::copy(command_options(), std::back_inserter(all));
    return all;
  }();
  return table;
}

const Option* find_option(std::string_view name, unsigned command, std::span<const Option> table) {
  for (const Option& option : table)
    if (option.name == name && (option.commands & command)) return &option;
  return nullptr;
}

std::vector<std::string_view> options_that_change_results() {
  std::vector<std::string_view> names;
  for (const Option& option : option_table())
    if ((option.commands & train) && option.changes_result) names.push_back(option.name);
  return names;
}

bool is_option(std::string_view name) {
  return std::any_of(option_table().begin(), option_table().end(),
                     [&](const Option& o) { return o.name == name; });
}

}  // namespace llama3d
