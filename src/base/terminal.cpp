#include "base/terminal.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

namespace llama3d {
namespace {

/// Of a process of the same user; false where it may not be asked.
bool stderr_of_process_is_terminal(pid_t process) {
  const std::string path = "/proc/" + std::to_string(process) + "/fd/2";
  std::string target(64, '\0');
  const ssize_t length = readlink(path.c_str(), target.data(), target.size());
  if (length <= 0 || !target.starts_with("/dev/")) return false;
  const int file = open(path.c_str(), O_WRONLY | O_NOCTTY | O_NONBLOCK);
  if (file < 0) return false;
  const bool terminal = isatty(file) == 1;
  close(file);
  return terminal;
}

}  // namespace

bool stderr_is_terminal() {
  if (isatty(STDERR_FILENO) == 1) return true;
  const bool started_by_mpirun = std::getenv("OMPI_COMM_WORLD_RANK") != nullptr;
  return started_by_mpirun && stderr_of_process_is_terminal(getppid());
}

}  // namespace llama3d
