#include "cli/local_command.hpp"

#include <fmt/format.h>

#include <exception>

#include "base/error.hpp"

namespace llama3d {

int run_local(const std::function<int()>& body) {
  try {
    return body();
  } catch (const Error& error) {
    fmt::print(stderr, "llama3d: error: {}\n", error.what());
    return static_cast<int>(error.status());
  } catch (const std::exception& error) {
    fmt::print(stderr, "llama3d: error: {}\n", error.what());
    return static_cast<int>(ExitStatus::failure);
  }
}

}  // namespace llama3d
