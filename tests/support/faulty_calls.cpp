// Preloaded into a program under test: system calls that fail when the test says so.
//   FAULTY_WRITE=FILE    while FILE is there, the next write to a metrics.h5 fails with EIO and removes FILE
//   FAULTY_FLOCK=ERRNO   flock fails with this number
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include <string>

namespace {

bool fails(int descriptor) {
  const char* trigger = ::getenv("FAULTY_WRITE");
  if (!trigger) return false;
  char name[4096];
  const ssize_t size =
      ::readlink(("/proc/self/fd/" + std::to_string(descriptor)).c_str(), name, sizeof name - 1);
  if (size < 0) return false;
  name[size] = 0;
  if (!::strstr(name, "/metrics.h5") || ::unlink(trigger) != 0) return false;
  errno = EIO;
  return true;
}

template <class Function>
Function* next(const char* name) {
  return reinterpret_cast<Function*>(::dlsym(RTLD_NEXT, name));
}

}  // namespace

extern "C" {

ssize_t write(int descriptor, const void* data, size_t size) {
  if (fails(descriptor)) return -1;
  return next<ssize_t(int, const void*, size_t)>("write")(descriptor, data, size);
}

ssize_t pwrite(int descriptor, const void* data, size_t size, off_t offset) {
  if (fails(descriptor)) return -1;
  return next<ssize_t(int, const void*, size_t, off_t)>("pwrite")(descriptor, data, size, offset);
}

ssize_t pwrite64(int descriptor, const void* data, size_t size, off64_t offset) {
  if (fails(descriptor)) return -1;
  return next<ssize_t(int, const void*, size_t, off64_t)>("pwrite64")(descriptor, data, size, offset);
}

int flock(int descriptor, int operation) noexcept {
  if (const char* number = ::getenv("FAULTY_FLOCK")) {
    errno = ::atoi(number);
    return -1;
  }
  return next<int(int, int)>("flock")(descriptor, operation);
}
}
