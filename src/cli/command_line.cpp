#include "cli/command_line.hpp"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/error.hpp"

namespace llama3d {
namespace {

/// TOML keys may be written with underscores, as identifiers in scripts are.
class OptionToml : public CLI::ConfigTOML {
 public:
  std::vector<CLI::ConfigItem> from_config(std::istream& input) const override {
    auto items = CLI::ConfigTOML::from_config(input);
    for (auto& item : items) {
      std::replace(item.name.begin(), item.name.end(), '_', '-');
      if (!item.parents.empty())
        throw CLI::ConversionError("sections are not used here (found [" + item.parents.front() +
                                   "]); write the options at the top level");
    }
    return items;
  }
};

std::string environment_name(const std::string& option) {
  std::string name = "LLAMA3D_" + option;
  for (char& c : name) c = c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return name;
}

std::string one_line(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

}  // namespace

CommandLine::CommandLine(const std::string& command, const std::string& description)
    : app_(description, "llama3d " + command) {
  app_.option_defaults()->always_capture_default();
  app_.config_formatter(std::make_shared<OptionToml>());
  app_.allow_config_extras(false);
  config_ = app_.set_config("--config", "", "TOML file with any of these options, e.g. tp-size = 2");
  app_.get_formatter()->column_width(36);
}

CLI::Option* CommandLine::configured(CLI::Option* option, const std::string& name) {
  entries_.push_back({name, option});
  return option->envname(environment_name(name));
}

CommandLine::Outcome CommandLine::parse(int argc, char** argv) {
  arguments_.assign(argv, argv + argc);
  try {
    app_.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    return Outcome::help;
  } catch (const CLI::ParseError& e) {
    throw ConfigurationError(one_line(e.what()) + "; see " + app_.get_name() + " --help");
  }
  return Outcome::run;
}

std::string CommandLine::value_of(const Entry& entry) const {
  if (entry.option->count() == 0) return entry.option->get_default_str();
  std::string value;
  for (const auto& part : entry.option->results()) value += (value.empty() ? "" : " ") + part;
  return value;
}

std::string CommandLine::origin_of(const Entry& entry) const {
  if (entry.option->count() == 0) return "default";
  const std::string flag = "--" + entry.name;
  const auto given = [&](const std::string& argument) {
    return argument == flag || argument == "--no-" + entry.name || argument.rfind(flag + "=", 0) == 0;
  };
  if (std::any_of(arguments_.begin(), arguments_.end(), given)) return "command line";
  if (config_->count() > 0) {
    const auto items = app_.get_config_formatter()->from_file(config_->as<std::string>());
    const auto named = [&](const CLI::ConfigItem& item) { return item.name == entry.name; };
    if (std::any_of(items.begin(), items.end(), named)) return config_->as<std::string>();
  }
  return "environment " + environment_name(entry.name);
}

std::string CommandLine::resolved() const {
  std::string text;
  for (const Entry& entry : entries_)
    text += fmt::format("{:<40} # {}\n", fmt::format("{} = \"{}\"", entry.name, value_of(entry)),
                        origin_of(entry));
  return text;
}

std::string CommandLine::resolved_json() const {
  nlohmann::ordered_json all = nlohmann::ordered_json::object();
  for (const Entry& entry : entries_) all[entry.name] = value_of(entry);
  return all.dump();
}

}  // namespace llama3d
