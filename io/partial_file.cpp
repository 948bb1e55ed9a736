#include "io/partial_file.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <random>
#include <system_error>

namespace llama3d::io {
namespace {

/// The process's number alone is not enough: hosts, and containers, that share a disk have the same ones.
std::string partial_name(const std::filesystem::path& path) {
  return fmt::format("{}.partial-{}-{:08x}", path.string(), ::getpid(), std::random_device()());
}

}  // namespace

PartialFile::PartialFile(const std::filesystem::path& path) : path_(path), partial_(partial_name(path)) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path_, ignored)) throw IoError("it is a folder");
  descriptor_ = open_descriptor(partial_, OpenMode::create_new);
}

PartialFile::~PartialFile() {
  if (!descriptor_) return;
  std::error_code ignored;
  std::filesystem::remove(partial_, ignored);
}

void PartialFile::commit() {
  sync(descriptor_.get());
  io::rename(partial_, path_);
  descriptor_.reset();
  sync_directory(path_.parent_path());
}

}  // namespace llama3d::io
