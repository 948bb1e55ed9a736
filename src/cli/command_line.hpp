#pragma once
// Options of one command: on the command line, in a TOML file (--config), as LLAMA3D_... environment
// variables, in that order of precedence; and where each value came from.

#include <CLI/CLI.hpp>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace llama3d {

class CommandLine {
 public:
  CommandLine(const std::string& command, const std::string& description);

  /// A value with its default as it stands; `unit` is shown in --help.
  template <class Value>
  CLI::Option* add(const std::string& name, Value& value, const std::string& help) {
    return configured(app_.add_option("--" + name, value, help), name);
  }
  CLI::Option* add_flag(const std::string& name, bool& value, const std::string& help) {
    return configured(app_.add_flag("--" + name + ",!--no-" + name, value, help), name);
  }
  /// A value written as one of a few words.
  template <class Value>
  CLI::Option* add_word(const std::string& name, Value& value, Value (*parse)(std::string_view),
                        std::string_view (*word)(Value), const std::string& help) {
    auto* option = app_.add_option_function<std::string>(
        "--" + name, [&value, parse](const std::string& text) { value = parse(text); }, help);
    option->default_str(std::string(word(value)));
    return configured(option, name);
  }
  /// A file that names no option and is not recorded: positional.
  template <class Value>
  CLI::Option* add_positional(const std::string& name, Value& value, const std::string& help) {
    return app_.add_option(name, value, help);
  }

  enum class Outcome { run, help };
  /// Throws ConfigurationError, naming the option, for anything wrong. After Outcome::help the text is in
  /// help().
  Outcome parse(int argc, char** argv);
  std::string help() const { return app_.help(); }

  /// Every option with its value and origin, a line each: `tp-size = 2  # command line`.
  std::string resolved() const;
  /// The same as a JSON object of name to value, for the record.
  std::string resolved_json() const;

 private:
  struct Entry {
    std::string name;
    CLI::Option* option;
  };

  CLI::Option* configured(CLI::Option* option, const std::string& name);
  std::string value_of(const Entry& entry) const;
  std::string origin_of(const Entry& entry) const;

  CLI::App app_;
  CLI::Option* config_ = nullptr;
  std::vector<Entry> entries_;
  std::vector<std::string> arguments_;
};

}  // namespace llama3d
