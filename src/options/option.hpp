#pragma once
// What there is to know of an option, once: command line, configuration files, environment, bounds, agreement
// between ranks, "changed since the checkpoint" and the reference are made of it.

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace llama3d {

struct TrainSettings;

/// Commands that have an option, as bits.
namespace commands {
inline constexpr unsigned train = 1, eval = 2, plan = 4, bench = 8, generate = 16, tokenize = 32,
                          import_weights = 64, export_weights = 128, inspect = 256;
}  // namespace commands
/// The bit of a command's word; 0 for none.
unsigned command_of(std::string_view word);

/// Headings of a command's help, in their order.
enum class OptionGroup {
  model,
  data,
  output,
  batch,
  parallelism,
  memory,
  optimizer,
  validation,
  checkpoints,
  generation,
  measurement,
  machine,
  look,
};
std::string_view title_of(OptionGroup group);

/// A value written as one of a few words. `read` throws ConfigurationError for another one.
struct WordValue {
  std::function<void(std::string_view)> read;
  std::function<std::string()> word;
};

/// Sees options with the values that they stand for.
class OptionVisitor {
 public:
  virtual ~OptionVisitor() = default;
  virtual void visit(std::string_view name, std::string& value) = 0;
  virtual void visit(std::string_view name, bool& value) = 0;
  virtual void visit(std::string_view name, int& value) = 0;
  virtual void visit(std::string_view name, std::int64_t& value) = 0;
  virtual void visit(std::string_view name, std::uint64_t& value) = 0;
  virtual void visit(std::string_view name, double& value) = 0;
  virtual void visit(std::string_view name, std::vector<int>& value) = 0;
  virtual void visit(std::string_view name, const WordValue& value) = 0;
};

struct Option {
  std::string_view name;  ///< "tp-size"
  unsigned commands = 0;
  OptionGroup group = OptionGroup::model;
  std::string_view help;  ///< says the unit
  /// What some commands' help adds to it.
  struct Note {
    unsigned commands = 0;
    std::string_view text;
  } note = {};

  /// Where TrainSettings holds it; null where it is another structure's.
  void (*member)(OptionVisitor& visitor, std::string_view name, TrainSettings& settings) = nullptr;
  /// What the value must be, "at least 1", and whether it is; null where any will do.
  std::string_view bounds = {};
  bool (*within)(const TrainSettings& settings) = nullptr;

  bool is_path = false;         ///< a file or folder, which may lie elsewhere on another node
  bool changes_result = false;  ///< a run that goes on says that it was another before
};

/// All options of all commands. The same name may have a row for one command and another for a second.
std::span<const Option> option_table();
/// The row of this name that the command has; null for none.
const Option* find_option(std::string_view name, unsigned command,
                          std::span<const Option> table = option_table());
/// Names of training's options whose change a run that goes on tells.
std::vector<std::string_view> options_that_change_results();
/// Whether any command has an option of this name.
bool is_option(std::string_view name);

}  // namespace llama3d
