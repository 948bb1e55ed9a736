#include "cli/local_command.hpp"

#include "base/output.hpp"
#include "comm/failure.hpp"

namespace llama3d {

int run_local(const std::function<int()>& body) {
  try {
    const int status = body();
    flush_results();
    return status;
  } catch (...) {
    return report_startup_failure();
  }
}

}  // namespace llama3d
