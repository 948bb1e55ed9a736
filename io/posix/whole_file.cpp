#include "io/posix/whole_file.hpp"

#include <utility>

#include "base/error.hpp"
#include "io/posix/partial_file.hpp"

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

}  // namespace

WholeFileWriter::WholeFileWriter(std::filesystem::path path) : path_(std::move(path)) {
  with_file(path_, [&] { partial_ = std::make_unique<io::PartialFile>(path_); });
}

WholeFileWriter::~WholeFileWriter() = default;

void WholeFileWriter::append(std::string_view text) {
  with_file(path_, [&] { io::write_at(partial_->descriptor(), text.data(), text.size(), size_); });
  size_ += static_cast<std::int64_t>(text.size());
}

void WholeFileWriter::finish() {
  with_file(path_, [&] { partial_->commit(); });
  partial_.reset();
}

}  // namespace llama3d
