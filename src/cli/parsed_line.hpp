#pragma once

#include <exception>

#include "cli/command_line.hpp"

namespace llama3d {

/// The options of a job, read before MPI starts, as its start needs their --comm-timeout. What is wrong with
/// them is for all ranks to tell together, once they can.
class ParsedLine {
 public:
  ParsedLine(CommandLine& line, int argc, char** argv);
  /// Throws what parse() threw.
  CommandLine::Outcome outcome() const;

 private:
  CommandLine::Outcome outcome_ = CommandLine::Outcome::run;
  std::exception_ptr error_;
};

}  // namespace llama3d
