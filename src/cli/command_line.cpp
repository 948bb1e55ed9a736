#include "cli/command_line.hpp"

#include <unistd.h>  // environ

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <iterator>
#include <nlohmann/json.hpp>

#include "base/json.hpp"
#include "base/printable.hpp"
#include "base/utf8.hpp"
#include "model/presets.hpp"
#include "options/toml.hpp"

namespace llama3d {
namespace {

using nlohmann::ordered_json;

std::string hyphenated(std::string name) {
  std::replace(name.begin(), name.end(), '_', '-');
  return name;
}

constexpr std::string_view environment_prefix = "LLAMA3D_";

std::string environment_name(const std::string& option) {
  std::string name = std::string(environment_prefix) + option;
  for (char& c : name) c = c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return name;
}

std::string environment_origin(const std::string& option) {
  return "environment " + environment_name(option);
}

/// `LLAMA3D_TP_SIZE` to `tp-size`.
std::string option_of_variable(std::string name) {
  name.erase(0, environment_prefix.size());
  for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return hyphenated(name);
}

std::string one_line(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

std::string quoted(const std::string& text) {
  return ordered_json(text).dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

/// An argument's option in the form that options have; empty where it is none.
std::string option_of_argument(const std::string& argument) {
  if (argument.rfind("--", 0) != 0) return {};
  return hyphenated(argument.substr(2, argument.find('=') - 2));
}

}  // namespace

/// Hands CLI11's reading of configuration files to the command line, which knows the options' types.
class CommandLine::OptionToml : public CLI::ConfigTOML {
 public:
  explicit OptionToml(CommandLine& line) : line_(line) {}
  std::vector<CLI::ConfigItem> from_config(std::istream& input) const override {
    return line_.read_config(input);
  }

 private:
  CommandLine& line_;
};

CommandLine::CommandLine(const std::string& command, const std::string& description)
    : CommandLine(command, description, option_table(), command_of(command)) {}

CommandLine::CommandLine(const std::string& command, const std::string& description,
                         std::span<const Option> table, unsigned bit)
    : table_(table), command_(bit), app_(description, "llama3d " + command) {
  app_.option_defaults()->always_capture_default();
  app_.config_formatter(std::make_shared<OptionToml>(*this));
  config_ = app_.set_config("--config", "", help_of("config"));
  config_->envname(environment_name("config"))->take_last();
  app_.get_formatter()->column_width(36);
}

/// Adds what TrainSettings holds, each by its type.
class CommandLine::SettingsAdder final : public OptionVisitor {
 public:
  explicit SettingsAdder(CommandLine& line) : line_(line) {}
  void visit(std::string_view name, std::string& value) override { add(name, value); }
  void visit(std::string_view name, bool& value) override { add(name, value); }
  void visit(std::string_view name, int& value) override { add(name, value); }
  void visit(std::string_view name, std::int64_t& value) override { add(name, value); }
  void visit(std::string_view name, std::uint64_t& value) override { add(name, value); }
  void visit(std::string_view name, double& value) override { add(name, value); }
  void visit(std::string_view name, std::vector<int>& value) override { add(name, value); }
  void visit(std::string_view name, const WordValue& value) override {
    line_.add_word(std::string(name), value);
  }

 private:
  template <class Value>
  void add(std::string_view name, Value& value) {
    line_.add(std::string(name), value);
  }
  CommandLine& line_;
};

void CommandLine::add_settings(TrainSettings& settings) {
  SettingsAdder adder(*this);
  for (const Option& option : table_)
    if ((option.commands & command_) && option.member) option.member(adder, option.name, settings);
}

const Option& CommandLine::row_of(const std::string& name) const {
  const Option* option = find_option(name, command_, table_);
  LLAMA3D_EXPECT(option, "no option {} of {} in the table", name, app_.get_name());
  return *option;
}

std::string CommandLine::help_of(const std::string& name) const {
  const Option& option = row_of(name);
  std::string help(option.help);
  if (option.note.commands & command_) help += option.note.text;
  return help;
}

void CommandLine::add_flag(const std::string& name, bool& value) {
  const char* standard = value ? "true" : "false";
  auto* option = app_.add_flag("--" + name + ",!--no-" + name, value, help_of(name));
  option->default_str(standard)->check([this, name](const std::string& text) {
    check_flag(name, text);
    return std::string();
  });
  configured(option, {name, option, Kind::flag, false});
}

void CommandLine::add_word(const std::string& name, const WordValue& value) {
  const auto assign = [this, name, read = value.read](const std::string& text) {
    try {
      read(text);
    } catch (const ConfigurationError& error) {
      throw ConfigurationError(error.what() + origin_note(name));
    }
  };
  auto* option = app_.add_option_function<std::string>("--" + name, assign, help_of(name));
  option->default_str(value.word());
  configured(option, {name, option, Kind::text, false});
}

void CommandLine::configured(CLI::Option* option, const Entry& entry) {
  entries_.push_back(entry);
  if (!entry.list) option->take_last();
  if (entry.list && entry.kind == Kind::integer) option->delimiter(',');
  option->group(std::string(title_of(row_of(entry.name).group)));
  option->envname(environment_name(entry.name));
}

const CommandLine::Entry* CommandLine::find(const std::string& name) const {
  const auto named = [&](const Entry& entry) { return entry.name == name; };
  const auto found = std::find_if(entries_.begin(), entries_.end(), named);
  return found == entries_.end() ? nullptr : &*found;
}

const CommandLine::Entry& CommandLine::entry(const std::string& name) const {
  const Entry* found = find(name);
  LLAMA3D_EXPECT(found != nullptr, "no option {}", name);
  return *found;
}

CommandLine::Outcome CommandLine::parse(int argc, char** argv) {
  on_command_line_.clear();
  std::vector<std::string> arguments;
  // CLI11 would read the file before the variable that names it. Of two the command line's is last, and
  // counts.
  if (const char* path = std::getenv(environment_name("config").c_str()); path && *path)
    arguments = {"--config", path};
  const std::vector<std::string> given = spread(argc, argv);
  arguments.insert(arguments.end(), given.begin(), given.end());
  try {
    app_.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
  } catch (const CLI::CallForHelp&) {
    return Outcome::help;
  } catch (const CLI::ExtrasError&) {
    refuse_extras();
  } catch (const CLI::FileError&) {
    throw ConfigurationError(
        fmt::format("--config {}: no file that can be read; give a TOML file", config_path()));
  } catch (const CLI::ParseError& e) {
    throw ConfigurationError(one_line(e.what()) + "; see " + app_.get_name() + " --help");
  }
  check_variables();
  return Outcome::run;
}

bool CommandLine::names_option(const std::string& argument) const {
  const std::string name = option_of_argument(argument);
  return find(name) || name == "config" || name == "help" ||
         (name.starts_with("no-") && find(name.substr(3)));
}

std::vector<std::string> CommandLine::spread(int argc, char** argv) {
  std::vector<std::string> spread;
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    if (argument == "--") {
      spread.insert(spread.end(), arguments.begin() + static_cast<std::ptrdiff_t>(i), arguments.end());
      break;
    }
    const std::string name = option_of_argument(argument);
    if (name.empty()) {
      spread.push_back(argument);
      continue;
    }
    const bool negated = name.rfind("no-", 0) == 0 && !find(name);
    on_command_line_.insert(negated ? name.substr(3) : name);
    const Entry* entry = find(name);
    const bool list = entry && entry->list;
    const auto equals = argument.find('=');
    if (name != "config" && !(entry && entry->kind == Kind::text)) {
      spread.push_back("--" + name + (equals == std::string::npos ? "" : argument.substr(equals)));
      continue;
    }
    std::vector<std::string> texts;
    if (equals != std::string::npos)
      texts.push_back(argument.substr(equals + 1));
    else if (i + 1 < arguments.size() && !names_option(arguments[i + 1]))
      texts.push_back(arguments[++i]);
    else
      throw ConfigurationError(
          fmt::format("--{}: no value given; a text that looks like an option is given as "
                      "--{}=TEXT",
                      name, name));
    while (list && i + 1 < arguments.size() && arguments[i + 1].rfind('-', 0) != 0)
      texts.push_back(arguments[++i]);
    for (const std::string& text : texts) {
      spread.push_back("--" + name);
      spread.push_back(text);
    }
  }
  return spread;
}

void CommandLine::expect_utf8(const std::vector<std::string>& names) const {
  for (const std::string& name : names)
    for (const std::string& text : entry(name).option->results())
      if (find_invalid_utf8(text) != std::string::npos)
        refuse_value(name, printable(text), "is no UTF-8; convert it, or set the terminal to UTF-8");
}

const CommandLine::Entry* CommandLine::nearest(const std::string& name, std::size_t farthest) const {
  const Entry* nearest = nullptr;
  std::size_t least = farthest + 1;
  for (const Entry& entry : entries_) {
    const std::size_t distance = edit_distance(name, entry.name);
    if (distance >= least) continue;
    least = distance;
    nearest = &entry;
  }
  return nearest;
}

const CommandLine::Entry* CommandLine::abbreviated(const std::string& name) const {
  const Entry* found = nullptr;
  for (const Entry& entry : entries_) {
    std::string initials;
    for (std::size_t i = 0; i < entry.name.size(); ++i)
      if (i == 0 || entry.name[i - 1] == '-') initials += entry.name[i];
    if (initials == name) return &entry;
    if (!found && entry.name.starts_with(name + "-")) found = &entry;
  }
  return found;
}

std::string CommandLine::suggestion(const std::string& name) const {
  if (const Entry* meant = abbreviated(name)) return fmt::format("did you mean --{}?", meant->name);
  const Entry* near = nearest(name, std::max<std::size_t>(2, name.size() / 3));
  return near ? fmt::format("did you mean --{}?", near->name)
              : fmt::format("{} --help lists the options", app_.get_name());
}

void CommandLine::check_variables() const {
  for (char** assignment = environ; *assignment; ++assignment) {
    const std::string_view text(*assignment);
    const std::string variable(text.substr(0, text.find('=')));
    if (variable.rfind(environment_prefix, 0) != 0) continue;
    const std::string name = option_of_variable(variable);
    const std::size_t farthest = std::min<std::size_t>(2, name.size() / 3);
    const Entry* near = nearest(name, farthest);
    if (!near && edit_distance(name, "config") > farthest) continue;
    const std::string meant = environment_name(near ? near->name : "config");
    if (variable != meant)
      throw ConfigurationError(
          fmt::format("environment {}: names no option; did you mean {}?", variable, meant));
  }
}

void CommandLine::refuse_extras() const {
  const std::vector<std::string> extras = app_.remaining();
  const auto is_option = [](const std::string& text) { return text.rfind('-', 0) == 0; };
  const auto option = std::find_if(extras.begin(), extras.end(), is_option);
  if (option == extras.end())
    throw ConfigurationError(
        fmt::format("{}: not expected here (options begin with --); {} --help lists them", extras.front(),
                    app_.get_name()));
  const std::string flag = option->substr(0, option->find('='));
  throw ConfigurationError(
      fmt::format("{}: no such option; {}", flag, suggestion(flag.substr(flag.find_first_not_of('-')))));
}

void CommandLine::refuse_idle(const std::vector<std::string>& names, const std::string& why) const {
  for (const std::string& name : names)
    if (on_command_line(name))
      throw ConfigurationError(
          fmt::format("--{} {}: has no effect, {}", name, printable(value_of(entry(name))), why));
}

void CommandLine::check_flag(const std::string& name, const std::string& text) const {
  for (const char* word : {"true", "false", "yes", "no", "on", "off", "1", "0"})
    if (text == word) return;
  refuse_value(name, text, "must be true or false");
}

void CommandLine::refuse_value(const std::string& name, const std::string& value, const char* right) const {
  throw ConfigurationError(fmt::format("--{} {}{}: {}", name, value, origin_note(name), right));
}

std::string CommandLine::config_path() const {
  return config_->count() > 0 ? config_->results().back() : std::string();
}

std::vector<CLI::ConfigItem> CommandLine::read_config(std::istream& input) {
  const std::string path = config_path();
  std::string text(longest_toml + 1, '\0');
  input.read(text.data(), std::ssize(text));
  if (input.bad())
    throw ConfigurationError(fmt::format("--config {}: can't be read; give a TOML file", path));
  text.resize(static_cast<std::size_t>(input.gcount()));
  std::vector<CLI::ConfigItem> items;
  const ordered_json options = parse_toml(text, path);
  for (const auto& [key, value] : options.items()) {
    const std::string name = hyphenated(key);
    const Entry* entry = find(name);
    if (!entry)
      throw ConfigurationError(fmt::format("{}: no option {}; {}", path, printable(key), suggestion(name)));
    if (!in_config_.insert(name).second)
      throw ConfigurationError(fmt::format("{}: {} is given twice; give it once", path, name));
    static constexpr const char* names[] = {"a text in quotes", "an integer", "a number", "true or false"};
    const auto right = [&](const ordered_json& one) {
      switch (entry->kind) {
        case Kind::text: return one.is_string();
        case Kind::integer: return one.is_number_integer();
        case Kind::number: return one.is_number();
        case Kind::flag: return one.is_boolean();
      }
      return false;
    };
    std::vector<ordered_json> all;
    if (entry->list && value.is_array())
      all.assign(value.begin(), value.end());
    else
      all.push_back(value);
    if (!std::all_of(all.begin(), all.end(), right))
      throw ConfigurationError(fmt::format("{}: {} = {}: must be {}{}", path, key, json_excerpt(value),
                                           names[static_cast<int>(entry->kind)],
                                           entry->list ? " or an array of such" : ""));
    CLI::ConfigItem item;
    item.name = name;
    for (const auto& one : all) item.inputs.push_back(one.is_string() ? one.get<std::string>() : one.dump());
    if (!item.inputs.empty()) items.push_back(std::move(item));
  }
  return items;
}

std::string CommandLine::value_of(const Entry& entry) const {
  if (entry.option->count() == 0) return entry.option->get_default_str();
  std::string value;
  for (const auto& part : entry.option->reduced_results()) value += (value.empty() ? "" : " ") + part;
  return value;
}

std::string CommandLine::canonical(const Entry& entry) const {
  const auto one = [&](const std::string& text) -> std::string {
    std::int64_t integer = 0;
    double number = 0;
    const char *begin = text.data(), *end = begin + text.size();
    switch (entry.kind) {
      case Kind::flag: return CLI::detail::to_flag_value(text) > 0 ? "true" : "false";
      case Kind::integer:
        if (std::from_chars(begin, end, integer).ptr == end) return fmt::format("{}", integer);
        break;
      case Kind::number:
        if (std::from_chars(begin, end, number).ptr == end) return fmt::format("{}", number);
        break;
      case Kind::text: break;
    }
    return text;
  };
  if (!entry.list || entry.option->count() == 0) return one(value_of(entry));
  std::string values;
  for (const auto& part : entry.option->reduced_results()) values += (values.empty() ? "" : " ") + one(part);
  return values;
}

std::string CommandLine::toml_of(const Entry& entry) const {
  const auto one = [&](const std::string& text) -> std::string {
    if (entry.kind == Kind::flag) return CLI::detail::to_flag_value(text) > 0 ? "true" : "false";
    return entry.kind == Kind::text ? quoted(text) : text;
  };
  if (!entry.list) return one(value_of(entry));
  std::string values;
  if (entry.option->count() > 0)
    for (const auto& part : entry.option->results()) values += (values.empty() ? "" : ", ") + one(part);
  return "[" + values + "]";
}

std::string CommandLine::origin_of(const Entry& entry) const {
  if (entry.option->count() == 0) return "default";
  if (on_command_line_.contains(entry.name)) return "command line";
  return in_config_.contains(entry.name) ? config_path() : environment_origin(entry.name);
}

std::string CommandLine::origin_note(const std::string& name) const {
  // Some versions of CLI11 check a variable's value before they count it as given.
  const Entry& of = entry(name);
  const std::string origin = of.option->count() > 0 ? origin_of(of) : environment_origin(name);
  return origin == "command line" ? std::string() : fmt::format(" (from {})", origin);
}

std::string CommandLine::resolved(const std::set<std::string>& without) const {
  std::string text;
  for (const Entry& entry : entries_) {
    if (without.contains(entry.name)) continue;
    // A character that a terminal would act on has its escape in a text of TOML, too.
    text += fmt::format("{:<40} # {}\n", printable_lines(fmt::format("{} = {}", entry.name, toml_of(entry))),
                        printable(origin_of(entry)));
  }
  return text;
}

std::string CommandLine::resolved_json() const {
  ordered_json all = ordered_json::object();
  for (const Entry& entry : entries_) all[entry.name] = canonical(entry);
  // Bytes that are no UTF-8 are for whoever takes the option to refuse.
  return all.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

}  // namespace llama3d
