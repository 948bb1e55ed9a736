#include "io/whole_file.hpp"

#include <unistd.h>

#include <system_error>

#include "base/error.hpp"
#include "io/posix_file.hpp"

namespace llama3d {
namespace {

/// Runs `step`; what goes wrong becomes the error of the file.
template <class Step>
void with_file(const std::filesystem::path& path, Step&& step) {
  try {
    step();
  } catch (const io::IoError& error) {
    throw DataError(fmt::format("{} can't be written ({}); give a file that can, on a disk with room",
                                path.string(), error.what()));
  }
}

std::filesystem::path folder_of(const std::filesystem::path& path) {
  return path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
}

}  // namespace

WholeFileWriter::WholeFileWriter(std::filesystem::path path)
    : path_(std::move(path)), partial_(path_.string() + ".partial") {
  with_file(path_, [&] {
    std::error_code error;
    if (std::filesystem::is_directory(path_, error)) throw io::IoError("it is a folder");
    descriptor_ = io::open_descriptor(partial_, io::OpenMode::create).detach();
  });
}

WholeFileWriter::~WholeFileWriter() {
  if (descriptor_ < 0) return;
  close(descriptor_);
  std::error_code ignored;
  std::filesystem::remove(partial_, ignored);
}

void WholeFileWriter::append(std::string_view text) {
  with_file(path_, [&] { io::write_at(descriptor_, text.data(), text.size(), size_); });
  size_ += static_cast<std::int64_t>(text.size());
}

void WholeFileWriter::finish() {
  with_file(path_, [&] {
    io::sync(descriptor_);
    io::rename(partial_, path_);
    io::sync_directory(folder_of(path_));
  });
  close(descriptor_);
  descriptor_ = -1;
}

}  // namespace llama3d
