#include "cli/local_command.hpp"

#include "mpi/failure.hpp"

namespace llama3d {

int run_local(const std::function<int()>& body) {
  try {
    return body();
  } catch (...) {
    return report_startup_failure();
  }
}

}  // namespace llama3d
