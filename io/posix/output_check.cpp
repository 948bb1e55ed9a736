#include "io/posix/output_check.hpp"

#include <system_error>

#include "base/error.hpp"

namespace llama3d {

void expect_no_input(const std::filesystem::path& output, const std::vector<std::filesystem::path>& inputs) {
  for (const auto& input : inputs) {
    std::error_code ignored;
    if (std::filesystem::equivalent(input, output, ignored))
      throw ConfigurationError(
          fmt::format("`output {}` is also an input, {} (it would be overwritten); choose another name",
                      output.string(), input.string()));
  }
}

}  // namespace llama3d
