#include "options/agreement.hpp"

#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "base/json.hpp"
#include "comm/failure.hpp"
#include "options/option.hpp"

namespace llama3d {

void expect_same_options(unsigned command, const std::string& options, ControlPlane& control) {
  const auto first = parse_json(control.broadcast(options, 0));
  const auto own = parse_json(options);
  const auto words = [](const nlohmann::json& value) {
    return value.is_string() ? value.get<std::string>() : value.dump();
  };
  fail_together(control, [&] {
    for (const auto& [name, value] : own.items()) {
      const Option* option = find_option(name, command);
      if (option && option->is_path) continue;
      const nlohmann::json leading = first.value(name, nlohmann::json());
      if (leading != value)
        throw ConfigurationError(fmt::format(
            "`{} {}`: rank 0 has {} (the environment or a file differs between nodes?); give every rank "
            "the same",
            field_of(name), words(value), words(leading)));
    }
  });
}

}  // namespace llama3d
