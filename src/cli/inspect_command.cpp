#include <fmt/format.h>

#include "base/output.hpp"
#include "cli/command_line.hpp"
#include "cli/commands.hpp"
#include "cli/local_command.hpp"
#include "io/describe.hpp"

namespace llama3d {

int inspect_command(int argc, char** argv) {
  return run_local([&] {
    CommandLine line("inspect", "Say what a checkpoint, token file, metrics file or safetensors file holds.");
    std::string path;
    bool verify = false;
    line.add_positional("file", path, "file or checkpoint folder")->required();
    line.add("verify", verify);
    if (line.parse(argc, argv) == CommandLine::Outcome::help)
      write_result(line.help());
    else
      print_result("{}\n", describe_file(path, verify));
    return 0;
  });
}

}  // namespace llama3d
