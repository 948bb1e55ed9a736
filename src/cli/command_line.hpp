#pragma once
// Options of one command: on the command line, in a TOML file (--config), as LLAMA3D_... environment
// variables, in that order of precedence; and where each value came from.

#include <CLI/CLI.hpp>
#include <charconv>
#include <cmath>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "base/error.hpp"
#include "options/option.hpp"
#include "options/settings.hpp"

namespace llama3d {

class CommandLine {
 public:
  /// `command`: the word that option_table() knows its options by.
  CommandLine(const std::string& command, const std::string& description);
  /// The options are those of another table with the bit `bit`.
  CommandLine(const std::string& command, const std::string& description, std::span<const Option> table,
              unsigned bit);
  CommandLine(const CommandLine&) = delete;
  CommandLine& operator=(const CommandLine&) = delete;

  /// Every option of this command that TrainSettings holds, with its default as it stands. The settings must
  /// outlive the command line.
  void add_settings(TrainSettings& settings);
  /// An option of the table: a text, a number or a list of these, with its default as it stands.
  template <class Value>
  void add(const std::string& name, Value& value) {
    using Element = typename ElementOf<Value>::Type;
    if constexpr (std::is_same_v<Value, bool>)
      add_flag(name, value);
    else if constexpr (std::is_same_v<Element, std::string>)
      add_text(name, value);
    else
      add_numbers<Element>(name, value);
  }
  /// A value written as one of a few words.
  void add_word(const std::string& name, const WordValue& value);
  /// The same; `parse` throws ConfigurationError for any other word.
  template <class Value>
  void add_word(const std::string& name, Value& value, Value (*parse)(std::string_view),
                std::string_view (*word)(Value)) {
    add_word(name, WordValue{[&value, parse](std::string_view text) { value = parse(text); },
                             [&value, word] { return std::string(word(value)); }});
  }
  /// What help and record have for an option that is not given, where that is not its value so far.
  void set_default_text(const std::string& name, const std::string& text) {
    entry(name).option->default_str(text);
  }
  /// A file that names no option and is not recorded: positional.
  template <class Value>
  CLI::Option* add_positional(const std::string& name, Value& value, const std::string& help) {
    return app_.add_option(name, value, help);
  }

  enum class Outcome { run, help };
  /// `--tp_size` is read as `--tp-size`; of an option given twice the last one counts, but for lists, which
  /// take all. A variable gives a list of texts one. Throws ConfigurationError, naming the option, for
  /// anything wrong. After Outcome::help the text is in help().
  Outcome parse(int argc, char** argv);
  std::string help() const { return app_.help(); }

  /// Every option but those of `without`, with its value and origin, a line each:
  /// `tp-size = 2  # command line`. A valid --config.
  std::string resolved(const std::set<std::string>& without) const;
  /// All as a JSON object of name to value, for the record and to compare: of a number that can be written in
  /// several ways always the same text.
  std::string resolved_json() const;
  /// Of the table.
  unsigned command() const { return command_; }
  /// Whether the option has its value from anywhere but its default.
  bool given(const std::string& name) const { return entry(name).option->count() > 0; }
  bool on_command_line(const std::string& name) const { return on_command_line_.contains(name); }
  /// Gives an option that was not given another default, one that follows from other options.
  template <class Value>
  void derive(const std::string& name, Value& value, Value derived) {
    if (given(name)) return;
    value = derived;
    entry(name).option->default_str(fmt::format("{}", derived));
  }
  /// Refuses options that were given on the command line and change nothing. What files and variables give
  /// may be for several commands and runs.
  void refuse_idle(const std::vector<std::string>& names, const std::string& why) const;
  /// Refuses texts of these options that are no UTF-8. Names of files may be of any bytes.
  void expect_utf8(const std::vector<std::string>& names) const;
  /// " (from FILE)" for a value that is not from the command line.
  std::string origin_note(const std::string& name) const;

 private:
  enum class Kind { text, integer, number, flag };
  struct Entry {
    std::string name;
    CLI::Option* option;
    Kind kind;
    bool list;
  };
  class OptionToml;

  template <class Value>
  struct ElementOf {
    using Type = Value;
    static constexpr bool list = false;
  };
  template <class Element>
  struct ElementOf<std::vector<Element>> {
    using Type = Element;
    static constexpr bool list = true;
  };
  template <class Element>
  static constexpr Kind kind_of() {
    if (std::is_integral_v<Element>) return Kind::integer;
    return std::is_arithmetic_v<Element> ? Kind::number : Kind::text;
  }

  /// As it was given: CLI11 would read "[a]" as a list, "{}" as an empty one, and a text of several words in
  /// other ways from version to version.
  template <class Value>
  void add_text(const std::string& name, Value& value) {
    const auto assign = [&value](const CLI::results_t& given) {
      if constexpr (ElementOf<Value>::list)
        value = given;
      else
        value = given.back();
      return true;
    };
    auto* option = app_.add_option("--" + name, assign, help_of(name));
    option->type_name("TEXT")->allow_extra_args(false);
    if constexpr (ElementOf<Value>::list)
      option->expected(1, CLI::detail::expected_max_vector_size);
    else
      option->default_str(value);
    configured(option, {name, option, Kind::text, ElementOf<Value>::list});
  }
  template <class Element, class Value>
  void add_numbers(const std::string& name, Value& value) {
    auto* option = app_.add_option("--" + name, value, help_of(name));
    option->check([this, name](const std::string& text) {
      // A variable's list may come here in one piece.
      if constexpr (ElementOf<Value>::list)
        for (const auto& part : CLI::detail::split(text, ',')) check_number<Element>(name, part);
      else
        check_number<Element>(name, text);
      return std::string();
    });
    configured(option, {name, option, kind_of<Element>(), ElementOf<Value>::list});
  }

  template <class Number>
  void check_number(const std::string& name, const std::string& text) const {
    Number value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    const bool whole = error == std::errc() && end == text.data() + text.size();
    if (error == std::errc::result_out_of_range) refuse_value(name, text, "is too large");
    if constexpr (std::is_floating_point_v<Number>) {
      if (!whole || !std::isfinite(value)) refuse_value(name, text, "must be a finite number");
    } else {
      const char* right =
          std::is_unsigned_v<Number> ? "must be an integer of 0 or more" : "must be an integer";
      if (!whole) refuse_value(name, text, right);
      // The parser would read it as octal.
      const std::size_t first = text[0] == '-' ? 1 : 0;
      if (text.size() > first + 1 && text[first] == '0')
        refuse_value(name, text, "must be an integer without leading zeros");
    }
  }

  void add_flag(const std::string& name, bool& value);
  class SettingsAdder;
  std::string help_of(const std::string& name) const;
  const Option& row_of(const std::string& name) const;
  void check_flag(const std::string& name, const std::string& text) const;
  /// The arguments with underscores in options' names as hyphens, and every text as `--name` `text`, a list's
  /// with the name in front of each: so the parser takes the text whole, whatever it begins with.
  std::vector<std::string> spread(int argc, char** argv);
  /// Whether an argument is "--" and the name of an option, negated or not.
  bool names_option(const std::string& argument) const;
  void configured(CLI::Option* option, const Entry& entry);
  const Entry* find(const std::string& name) const;
  const Entry& entry(const std::string& name) const;
  [[noreturn]] void refuse_value(const std::string& name, const std::string& value, const char* right) const;
  /// The option whose words begin with these letters ("lr"), or whose first word this is ("tp"), or none.
  const Entry* abbreviated(const std::string& name) const;
  /// Of the options at most `farthest` letters away; none where there is none.
  const Entry* nearest(const std::string& name, std::size_t farthest) const;
  /// Refuses LLAMA3D_ variables that are this command's options but for a slip. Others may be another's.
  void check_variables() const;
  /// "did you mean --tp-size?" where an option is near, else where to look.
  std::string suggestion(const std::string& name) const;
  [[noreturn]] void refuse_extras() const;
  std::vector<CLI::ConfigItem> read_config(std::istream& input);
  std::string config_path() const;
  std::string value_of(const Entry& entry) const;
  std::string canonical(const Entry& entry) const;
  std::string toml_of(const Entry& entry) const;
  std::string origin_of(const Entry& entry) const;

  std::span<const Option> table_;
  unsigned command_;
  CLI::App app_;
  CLI::Option* config_ = nullptr;
  std::vector<Entry> entries_;
  std::set<std::string> on_command_line_;  ///< options, without "--no-"
  std::set<std::string> in_config_;        ///< options that the TOML file gives
};

}  // namespace llama3d
