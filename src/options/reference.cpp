#include "options/reference.hpp"

#include <fmt/format.h>

#include <array>

#include "base/error.hpp"
#include "options/option.hpp"

namespace llama3d {
namespace {

constexpr std::array<std::string_view, 9> words = {"train",    "eval",   "generate", "plan",   "bench",
                                                   "tokenize", "import", "export",   "inspect"};
constexpr std::array groups = {OptionGroup::model,      OptionGroup::data,        OptionGroup::output,
                               OptionGroup::batch,      OptionGroup::parallelism, OptionGroup::memory,
                               OptionGroup::optimizer,  OptionGroup::validation,  OptionGroup::checkpoints,
                               OptionGroup::generation, OptionGroup::measurement, OptionGroup::machine,
                               OptionGroup::look};

/// A bar would end a cell.
std::string cell(std::string_view text) {
  std::string escaped;
  for (const char c : text) escaped += c == '|' ? std::string("\\|") : std::string(1, c);
  return escaped;
}

/// Fields in them are options here.
std::string bounds(const Option& option) {
  std::string text(option.bounds);
  for (const Option& other : option_table())
    if (const auto at = text.find(fmt::format("`{}`", field_of(other.name))); at != std::string::npos)
      text.replace(at, other.name.size() + 2, fmt::format("`--{}`", other.name));
  return text;
}

std::string row(const Option& option, unsigned command) {
  std::string meaning(option.help);
  if (option.note.commands & command) meaning += option.note.text;
  if (!option.bounds.empty()) meaning += fmt::format(" (must be {})", bounds(option));
  return fmt::format("| `--{}` | {} |\n", option.name, cell(meaning));
}

std::string section(std::string_view word) {
  const unsigned command = command_of(word);
  std::string text = fmt::format("\n## {}\n", word);
  for (const OptionGroup group : groups) {
    std::string rows;
    for (const Option& option : option_table())
      if ((option.commands & command) && option.group == group) rows += row(option, command);
    if (!rows.empty()) text += fmt::format("\n| {} | |\n| --- | --- |\n{}", title_of(group), rows);
  }
  return text;
}

}  // namespace

std::string options_reference() {
  std::string text =
      "# Options\n\nMade by `llama3d --options`; `llama3d COMMAND --help` also has the defaults. Every "
      "option can stand in a TOML\n"
      "file (`--config FILE`, `tp-size = 2`) and in the environment (`LLAMA3D_TP_SIZE=2`). The command line "
      "wins over the\n"
      "file, and that over the environment. A switch is given as `--NAME` or `--no-NAME`.\n";
  for (const std::string_view word : words) text += section(word);
  return text;
}

}  // namespace llama3d
