#include "cli/same_options.hpp"

#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "mpi/failure.hpp"

namespace llama3d {

void expect_same_options(const CommandLine& line, ControlPlane& control) {
  const auto first = nlohmann::json::parse(control.broadcast(line.resolved_json(), 0));
  const auto own = nlohmann::json::parse(line.resolved_json());
  const auto words = [](const nlohmann::json& value) {
    return value.is_string() ? value.get<std::string>() : value.dump();
  };
  fail_together(control, [&] {
    for (const auto& [option, value] : own.items()) {
      const nlohmann::json leading = first.value(option, nlohmann::json());
      if (leading != value)
        throw ConfigurationError(fmt::format(
            "--{} {}: rank 0 has {} (the environment or a file differs between nodes?); give every rank "
            "the same",
            option, words(value), words(leading)));
    }
  });
}

}  // namespace llama3d
