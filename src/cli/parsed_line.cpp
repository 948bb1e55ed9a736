#include "cli/parsed_line.hpp"

namespace llama3d {

ParsedLine::ParsedLine(CommandLine& line, int argc, char** argv) {
  try {
    outcome_ = line.parse(argc, argv);
  } catch (...) {
    error_ = std::current_exception();
  }
}

CommandLine::Outcome ParsedLine::outcome() const {
  if (error_) std::rethrow_exception(error_);
  return outcome_;
}

}  // namespace llama3d
