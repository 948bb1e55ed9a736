#include "cuda/matmul_choices.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <iterator>
#include <sstream>

#include <fmt/format.h>

#include "base/unique_handle.hpp"

namespace llama3d::cuda {
namespace {

struct DescriptorTraits {
  using Handle = int;
  static constexpr Handle invalid = -1;
  static void release(Handle descriptor) { ::close(descriptor); }
};

/// A file that no other process writes meanwhile, where the file system knows locks. Errors leave it empty or
/// cut short.
class LockedFile {
 public:
  LockedFile(const std::filesystem::path& path, int flags, int lock)
      : descriptor_(::open(path.c_str(), flags | O_CLOEXEC, 0666)) {
    if (descriptor_) ::flock(descriptor_.get(), lock);
  }

  std::string read() const {
    std::string text;
    char part[4096];
    for (ssize_t size = 0;
         (size = ::pread(descriptor_.get(), part, sizeof part, static_cast<off_t>(text.size()))) > 0;)
      text.append(part, static_cast<std::size_t>(size));
    return text;
  }
  void write(std::string_view text) {
    off_t at = 0;
    while (!text.empty()) {
      const ssize_t written = ::pwrite(descriptor_.get(), text.data(), text.size(), at);
      if (written <= 0) break;
      at += written;
      text.remove_prefix(static_cast<std::size_t>(written));
    }
    if (::ftruncate(descriptor_.get(), at) != 0) return;
  }
  explicit operator bool() const { return static_cast<bool>(descriptor_); }

 private:
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

std::map<std::string, cublasLtMatmulAlgo_t> parse(const std::string& text) {
  std::map<std::string, cublasLtMatmulAlgo_t> choices;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) {
    const auto split = line.rfind(' ');
    if (split == std::string::npos) continue;
    if (const auto algorithm = from_hex(line.substr(split + 1))) choices[line.substr(0, split)] = *algorithm;
  }
  return choices;
}

std::string format(const std::map<std::string, cublasLtMatmulAlgo_t>& choices) {
  std::string text;
  for (const auto& [product, algorithm] : choices) text += product + ' ' + to_hex(algorithm) + '\n';
  return text;
}

bool same(const cublasLtMatmulAlgo_t& x, const cublasLtMatmulAlgo_t& y) {
  return std::memcmp(x.data, y.data, sizeof x.data) == 0;
}

}  // namespace

MatmulChoices::MatmulChoices(std::filesystem::path file) : file_(std::move(file)) {
  if (file_.empty()) return;
  if (const LockedFile in(file_, O_RDONLY, LOCK_SH); in) choices_ = parse(in.read());
}

std::optional<cublasLtMatmulAlgo_t> MatmulChoices::find(const std::string& product) const {
  const auto found = choices_.find(product);
  return found == choices_.end() ? std::nullopt : std::optional(found->second);
}

cublasLtMatmulAlgo_t MatmulChoices::settle(const std::string& product,
                                           const cublasLtMatmulAlgo_t& algorithm) {
  const auto known = find(product);
  choices_[product] = algorithm;
  if (file_.empty()) return algorithm;
  std::error_code error;
  std::filesystem::create_directories(file_.parent_path(), error);
  LockedFile file(file_, O_RDWR | O_CREAT, LOCK_EX);
  if (!file) return algorithm;
  Choices kept = parse(file.read());
  const auto other = kept.find(product);
  if (other != kept.end() && !(known && same(*known, other->second)))
    return choices_[product] = other->second;
  kept[product] = algorithm;
  file.write(format(kept));
  return algorithm;
}

}  // namespace llama3d::cuda
