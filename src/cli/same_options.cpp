#include "cli/same_options.hpp"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/error.hpp"
#include "base/json.hpp"
#include "comm/failure.hpp"

namespace llama3d {
namespace {

/// Files may lie elsewhere on another node.
constexpr std::array<std::string_view, 11> of_a_node = {"prompt-file", "config",     "data",      "input",
                                                        "tokenizer",   "load",       "model",     "output",
                                                        "resume",      "output-dir", "valid-data"};

}  // namespace

void expect_same_options(const CommandLine& line, ControlPlane& control) {
  const auto first = parse_json(control.broadcast(line.resolved_json(), 0));
  const auto own = parse_json(line.resolved_json());
  const auto words = [](const nlohmann::json& value) {
    return value.is_string() ? value.get<std::string>() : value.dump();
  };
  fail_together(control, [&] {
    for (const auto& [option, value] : own.items()) {
      if (std::find(of_a_node.begin(), of_a_node.end(), option) != of_a_node.end()) continue;
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
