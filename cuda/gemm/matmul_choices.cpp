#include "cuda/gemm/matmul_choices.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>

#include <fmt/format.h>

#include "base/unique_handle.hpp"

namespace llama3d::cuda {
namespace {

struct DescriptorTraits {
  using Handle = int;
  static constexpr Handle invalid = -1;
  static void release(Handle descriptor) { ::close(descriptor); }
};

/// Keeps other processes from changing the file meanwhile, as far as its file system knows locks: without,
/// one of several that write at once wins.
class Lock {
 public:
  explicit Lock(const std::filesystem::path& file)
      : descriptor_(::open((file.string() + ".lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666)) {
    // Never for long: a lock that a stopped process holds must not stop this one.
    for (int attempt = 0; descriptor_ && attempt < attempts; ++attempt) {
      if (::flock(descriptor_.get(), LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) return;
      std::this_thread::sleep_for(pause);
    }
  }

 private:
  static constexpr int attempts = 100;
  static constexpr std::chrono::milliseconds pause{10};
  UniqueHandle<DescriptorTraits> descriptor_;
};

std::string to_hex(const cublasLtMatmulAlgo_t& algorithm) {
  std::string text;
  for (const std::uint64_t word : algorithm.data) text += fmt::format("{:016x}", word);
  return text;
}

std::optional<cublasLtMatmulAlgo_t> from_hex(const std::string& text) {
  cublasLtMatmulAlgo_t algorithm{};
  if (text.size() != std::size(algorithm.data) * 16) return std::nullopt;
  for (std::size_t i = 0; i < std::size(algorithm.data); ++i) {
    char* end = nullptr;
    const std::string word = text.substr(i * 16, 16);
    algorithm.data[i] = std::strtoull(word.c_str(), &end, 16);
    if (*end != 0) return std::nullopt;
  }
  return algorithm;
}

using Choices = std::map<std::string, cublasLtMatmulAlgo_t>;

Choices read(const std::filesystem::path& file) {
  Choices choices;
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    const auto split = line.rfind(' ');
    if (split == std::string::npos) continue;
    if (const auto algorithm = from_hex(line.substr(split + 1))) choices[line.substr(0, split)] = *algorithm;
  }
  return choices;
}

/// Written aside and renamed, so that nobody ever reads half a file. The name aside is nobody else's, on no
/// other node either.
void write(const std::filesystem::path& file, const Choices& choices) {
  std::string aside = file.string() + ".XXXXXX";
  const UniqueHandle<DescriptorTraits> made(::mkstemp(aside.data()));
  if (!made) return;
  // For other users of the folder, if there are any; the file is of use without.
  static_cast<void>(::fchmod(made.get(), 0644));
  std::error_code error;
  {
    std::ofstream out(aside);
    for (const auto& [gemm, algorithm] : choices) out << gemm << ' ' << to_hex(algorithm) << '\n';
    out.close();
    if (!out) error = std::make_error_code(std::errc::io_error);
  }
  if (!error) std::filesystem::rename(aside, file, error);
  if (error) std::filesystem::remove(aside, error);
}

bool same(const cublasLtMatmulAlgo_t& x, const cublasLtMatmulAlgo_t& y) {
  return std::memcmp(x.data, y.data, sizeof x.data) == 0;
}

}  // namespace

MatmulChoices::MatmulChoices(std::filesystem::path file) : file_(std::move(file)) {
  if (!file_.empty()) choices_ = read(file_);
}

std::optional<cublasLtMatmulAlgo_t> MatmulChoices::find(const std::string& gemm) const {
  const auto found = choices_.find(gemm);
  return found == choices_.end() ? std::nullopt : std::optional(found->second);
}

cublasLtMatmulAlgo_t MatmulChoices::settle(const std::string& gemm, const cublasLtMatmulAlgo_t& algorithm) {
  const auto known = find(gemm);
  choices_[gemm] = algorithm;
  if (file_.empty()) return algorithm;
  std::error_code error;
  std::filesystem::create_directories(file_.parent_path(), error);
  const Lock lock(file_);
  Choices kept = read(file_);
  const auto other = kept.find(gemm);
  if (other != kept.end() && !(known && same(*known, other->second))) return choices_[gemm] = other->second;
  kept[gemm] = algorithm;
  write(file_, kept);
  return algorithm;
}

}  // namespace llama3d::cuda
