#include "io/foreign_json.hpp"

#include <fmt/format.h>

#include <set>
#include <string>
#include <vector>

#include "io/posix_file.hpp"
#include "io/printable.hpp"

namespace llama3d::io {

nlohmann::json parse_foreign_json(std::string_view text) {
  using Json = nlohmann::json;
  constexpr int deepest = 16;
  std::vector<std::set<std::string>> keys;  // of the objects that are open
  const auto watch = [&](int depth, Json::parse_event_t event, Json& value) {
    switch (event) {
      case Json::parse_event_t::object_start: keys.emplace_back(); [[fallthrough]];
      case Json::parse_event_t::array_start:
        if (depth >= deepest) throw IoError(fmt::format("its JSON is nested more than {} deep", deepest));
        break;
      case Json::parse_event_t::object_end: keys.pop_back(); break;
      case Json::parse_event_t::key:
        if (!keys.back().insert(value.get_ref<const std::string&>()).second)
          throw IoError(printable(value.get_ref<const std::string&>()) + " is listed twice");
        break;
      default: break;
    }
    return true;
  };
  try {
    Json parsed = Json::parse(text.begin(), text.end(), watch);
    if (!parsed.is_object()) throw IoError("it is not a JSON object");
    return parsed;
  } catch (const Json::exception& error) {
    throw IoError("damaged JSON: " + printable(error.what()));
  }
}

}  // namespace llama3d::io
