#include "cli/option_text.hpp"

#include <algorithm>

#include "options/option.hpp"

namespace llama3d {
namespace {

/// The option's name of a field, "tp-size" or "no-tp-overlap"; empty for other words.
std::string option_of_field(std::string_view field) {
  std::string name(field);
  std::replace(name.begin(), name.end(), '_', '-');
  const bool known = is_option(name) || (name.starts_with("no-") && is_option(name.substr(3)));
  return known && field.find('-') == std::string_view::npos ? name : std::string();
}

}  // namespace

std::string with_option_names(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const auto begin = text.find('`');
    const auto end = begin == std::string_view::npos ? begin : text.find('`', begin + 1);
    if (end == std::string_view::npos) break;
    const std::string_view quoted = text.substr(begin + 1, end - begin - 1);
    const std::string_view field = quoted.substr(0, quoted.find(' '));
    const std::string name = option_of_field(field);
    out += text.substr(0, begin);
    if (name.empty()) {
      // The second backquote may be the first of a field.
      out += text.substr(begin, end - begin);
      text.remove_prefix(end);
      continue;
    }
    out += "--" + name;
    out += quoted.substr(field.size());
    text.remove_prefix(end + 1);
  }
  return out.append(text);
}

}  // namespace llama3d
