#include "base/error.hpp"

namespace llama3d {

void throw_contract_violation(const char* condition, const std::string& message, std::source_location where) {
  throw ContractViolation(fmt::format("{} (expected {}) in {} at {}:{}", message, condition,
                                      where.function_name(), where.file_name(), where.line()));
}

}  // namespace llama3d
