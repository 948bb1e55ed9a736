// Preloaded into a program under test: calls that fail, or stop the process, when the test says so.
//   FAULTY_WRITE=FILE    while FILE is there, the next write to a metrics.h5 fails with EIO and removes FILE
//   FAULTY_FLOCK=ERRNO   flock fails with this number
//   FAULTY_STOP=CALL     the process stops in the first MPI_Iallreduce or MPI_Finalize
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
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

void stop_in(const char* call) {
  const char* where = ::getenv("FAULTY_STOP");
  if (where && ::strcmp(where, call) == 0) ::raise(SIGSTOP);
}

}  // namespace

extern "C" {

// As Open MPI declares them.
int MPI_Finalize() {
  stop_in("MPI_Finalize");
  return next<int()>("MPI_Finalize")();
}

int MPI_Iallreduce(const void* send, void* receive, int count, void* type, void* operation, void* comm,
                   void* request) {
  stop_in("MPI_Iallreduce");
  return next<int(const void*, void*, int, void*, void*, void*, void*)>("MPI_Iallreduce")(
      send, receive, count, type, operation, comm, request);
}

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
