// The file in which a GPU's choices of algorithms for GEMMs are kept.
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>

#include "cuda/device/cuda_device.hpp"
#include "cuda/gemm/matmul_choices.hpp"
#include "machines.hpp"
#include "support/preconditions.hpp"
#include "support/relative_error.hpp"
#include "support/temporary_folder.hpp"

namespace llama3d::test {
namespace {

/// A GEMM by a device of its own that keeps its choices in `folder`.
std::vector<float> gemm_with_cache(const std::filesystem::path& folder) {
  setenv("LLAMA3D_CACHE_DIR", folder.c_str(), 1);
  Machine machine(make_cuda_device(0));
  const std::int64_t t = 256, n = 512, k = 1024;
  const Buffer y(machine, DType::bf16, {t, n});
  machine.kernels().linear_forward(Buffer(machine, DType::bf16, {t, k}, random_values(t * k, DType::bf16, 1)),
                                   Buffer(machine, DType::bf16, {n, k}, random_values(n * k, DType::bf16, 2)),
                                   y, *machine.stream);
  return y.read();
}

std::filesystem::path only_file(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> files;
  for (const auto& file : std::filesystem::directory_iterator(folder))
    if (file.path().extension() == ".txt") files.push_back(file.path());
  BOOST_REQUIRE_EQUAL(files.size(), 1u);
  return files.front();
}

std::string text_of(const std::filesystem::path& file) {
  std::ifstream in(file);
  return {std::istreambuf_iterator<char>(in), {}};
}

}  // namespace

cublasLtMatmulAlgo_t algorithm(std::uint64_t word) {
  cublasLtMatmulAlgo_t made{};
  made.data[0] = word;
  made.data[7] = ~word;
  return made;
}

std::uint64_t word_of(const std::optional<cublasLtMatmulAlgo_t>& algorithm) {
  BOOST_REQUIRE(algorithm);
  BOOST_CHECK(algorithm->data[7] == ~algorithm->data[0]);
  return algorithm->data[0];
}

BOOST_AUTO_TEST_SUITE(matmul_cache)

BOOST_AUTO_TEST_CASE(of_processes_that_measure_at_once_the_first_decides) {
  const TemporaryFolder folder;
  const auto file = folder.path() / "a" / "choices.txt";
  cuda::MatmulChoices first(file), second(file);
  BOOST_CHECK_EQUAL(word_of(first.settle("1 2 3 TN", algorithm(5))), 5u);
  BOOST_CHECK(!second.find("1 2 3 TN"));
  BOOST_CHECK_EQUAL(word_of(second.settle("1 2 3 TN", algorithm(6))), 5u);
  BOOST_CHECK_EQUAL(word_of(second.find("1 2 3 TN")), 5u);
  // Neither loses what the other wrote.
  second.settle("4 5 6 NN", algorithm(7));
  first.settle("7 8 9 NT", algorithm(8));
  const cuda::MatmulChoices later(file);
  BOOST_CHECK_EQUAL(word_of(later.find("1 2 3 TN")), 5u);
  BOOST_CHECK_EQUAL(word_of(later.find("4 5 6 NN")), 7u);
  BOOST_CHECK_EQUAL(word_of(later.find("7 8 9 NT")), 8u);
}

BOOST_AUTO_TEST_CASE(a_choice_that_is_no_good_is_replaced) {
  const TemporaryFolder folder;
  const auto file = folder.path() / "choices.txt";
  cuda::MatmulChoices(file).settle("1 2 3 TN", algorithm(5));
  cuda::MatmulChoices first(file), second(file);
  BOOST_CHECK_EQUAL(word_of(first.settle("1 2 3 TN", algorithm(9))), 9u);
  BOOST_CHECK_EQUAL(word_of(second.settle("1 2 3 TN", algorithm(10))), 9u);
  BOOST_CHECK_EQUAL(word_of(cuda::MatmulChoices(file).find("1 2 3 TN")), 9u);
}

BOOST_AUTO_TEST_CASE(a_lock_that_is_never_given_back_holds_up_for_a_second) {
  const TemporaryFolder folder;
  const auto file = folder.path() / "choices.txt";
  const int held = open((file.string() + ".lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  BOOST_REQUIRE_EQUAL(flock(held, LOCK_EX), 0);
  cuda::MatmulChoices(file).settle("1 2 3 TN", algorithm(5));
  close(held);
  BOOST_CHECK_EQUAL(word_of(cuda::MatmulChoices(file).find("1 2 3 TN")), 5u);
}

BOOST_AUTO_TEST_CASE(without_a_file_choices_last_as_long_as_the_process) {
  for (const std::filesystem::path file : {"", "/proc/no_such_folder/choices.txt"}) {
    cuda::MatmulChoices choices(file);
    BOOST_CHECK_EQUAL(word_of(choices.settle("1 2 3 TN", algorithm(5))), 5u);
    BOOST_CHECK_EQUAL(word_of(choices.find("1 2 3 TN")), 5u);
  }
}

BOOST_AUTO_TEST_CASE(a_choice_is_kept_and_used_again,
                     *needs("a GPU", [] { return cuda_device_count() > 0; })) {
  const TemporaryFolder folder;
  const auto first = gemm_with_cache(folder.path());
  const std::string choices = text_of(only_file(folder.path()));
  BOOST_CHECK(choices.starts_with("512 256 1024 TN bf16 bf16 0 "));
  BOOST_CHECK_EQUAL(std::count(choices.begin(), choices.end(), '\n'), 1);
  BOOST_CHECK(gemm_with_cache(folder.path()) == first);
  BOOST_CHECK_EQUAL(text_of(only_file(folder.path())), choices);
}

BOOST_AUTO_TEST_CASE(a_damaged_file_is_measured_anew,
                     *needs("a GPU", [] { return cuda_device_count() > 0; })) {
  const TemporaryFolder folder;
  const auto first = gemm_with_cache(folder.path());
  const auto file = only_file(folder.path());
  const std::string choices = text_of(file);
  std::ofstream(file) << choices.substr(0, choices.size() / 2) << "\nnonsense\n";
  const Rows rows{{256}};
  CHECK_AGREES("linear_forward y", gemm_with_cache(folder.path()), first, rows, tolerance(DType::bf16, 1024));
  BOOST_CHECK(text_of(file).starts_with("512 256 1024 TN bf16 bf16 0 "));
  // A choice that is read but means nothing to cuBLASLt.
  std::ofstream(file) << choices.substr(0, choices.rfind(' ') + 1) << std::string(128, 'f') << '\n';
  CHECK_AGREES("linear_forward y", gemm_with_cache(folder.path()), first, rows, tolerance(DType::bf16, 1024));
  BOOST_CHECK(text_of(file).find("ffffffffffffffff") == std::string::npos);
}

BOOST_AUTO_TEST_CASE(a_folder_that_cannot_be_written_is_no_error,
                     *needs("a GPU", [] { return cuda_device_count() > 0; })) {
  const TemporaryFolder folder;
  const auto kept = gemm_with_cache(folder.path()), not_kept = gemm_with_cache("/proc/no_such_folder");
  // Either may have chosen another algorithm.
  BOOST_CHECK_LE(relative_error(std::span<const float>(not_kept), std::span<const float>(kept)), 0x1p-8);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace llama3d::test
