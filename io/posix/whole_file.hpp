#pragma once
// A text file whose name means complete.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string_view>

namespace llama3d {
namespace io {
class PartialFile;
}

/// Writes beside `path` and renames it at finish(); without that nothing is left. Throws DataError naming
/// file and reason.
class WholeFileWriter {
 public:
  explicit WholeFileWriter(std::filesystem::path path);
  ~WholeFileWriter();
  WholeFileWriter(const WholeFileWriter&) = delete;
  WholeFileWriter& operator=(const WholeFileWriter&) = delete;

  void append(std::string_view text);
  /// Syncs, and replaces what had the name before.
  void finish();

 private:
  std::filesystem::path path_;
  std::unique_ptr<io::PartialFile> partial_;
  std::int64_t size_ = 0;
};

}  // namespace llama3d
