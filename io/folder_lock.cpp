#include "io/folder_lock.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <array>
#include <cerrno>

namespace llama3d {

FolderLock::FolderLock(const std::filesystem::path& folder, const std::string& holder)
    : file_(::open((folder / ".lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644)) {
  if (!file_) return;
  if (::flock(file_.get(), LOCK_EX | LOCK_NB) == 0) {
    // The name is a courtesy: a full disk leaves it out.
    if (::ftruncate(file_.get(), 0) == 0) (void)!::pwrite(file_.get(), holder.data(), holder.size(), 0);
  } else if (errno == EWOULDBLOCK) {
    std::array<char, 256> name{};
    const auto read = ::pread(file_.get(), name.data(), name.size(), 0);
    held_by_ = std::string(name.data(), read > 0 ? static_cast<std::size_t>(read) : 0);
  }
}

}  // namespace llama3d
