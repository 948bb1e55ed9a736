#include "cuda/device/check.hpp"

namespace llama3d::cuda {
namespace {

[[noreturn]] void fail(std::string_view operation, std::string_view reason, std::source_location where) {
  throw Error(ExitStatus::failure,
              fmt::format("{} failed ({}; {}:{})", operation, reason, where.file_name(), where.line()));
}

}  // namespace

void check(cudaError_t status, std::string_view operation, std::source_location where) {
  if (status == cudaSuccess) return;
  fail(operation, fmt::format("{}: {}", cudaGetErrorName(status), cudaGetErrorString(status)), where);
}

void check(cublasStatus_t status, std::string_view operation, std::source_location where) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  fail(operation, cublasLtGetStatusString(status), where);
}

void check_launch(std::string_view operation, const Shape& shape, std::source_location where) {
  const cudaError_t status = cudaGetLastError();
  if (status == cudaSuccess) return;
  check(status, fmt::format("{} of {}", operation, shape.to_string()), where);
}

}  // namespace llama3d::cuda
