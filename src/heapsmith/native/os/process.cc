#include "os/process.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

namespace hs::os {

namespace {

uint64_t clock_ns(clockid_t clock) {
  timespec now = {};
  clock_gettime(clock, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(now.tv_nsec);
}

}  // namespace

KeepErrno::KeepErrno() : value_(errno) {}
KeepErrno::~KeepErrno() { errno = value_; }

uint32_t process_id() { return static_cast<uint32_t>(syscall(SYS_getpid)); }
uint32_t parent_process_id() { return static_cast<uint32_t>(syscall(SYS_getppid)); }
uint32_t thread_id() { return static_cast<uint32_t>(syscall(SYS_gettid)); }
void thread_name(char (&name)[16]) { prctl(PR_GET_NAME, name, 0, 0, 0); }
uint64_t monotonic_ns() { return clock_ns(CLOCK_MONOTONIC); }
uint64_t monotonic_coarse_ns() { return clock_ns(CLOCK_MONOTONIC_COARSE); }
uint64_t realtime_ns() { return clock_ns(CLOCK_REALTIME); }

Usage usage() {
  rusage seen = {};
  getrusage(RUSAGE_SELF, &seen);
  return {static_cast<uint64_t>(seen.ru_maxrss) * 1024, static_cast<uint64_t>(seen.ru_minflt),
          static_cast<uint64_t>(seen.ru_majflt)};
}

void yield_processor() { syscall(SYS_sched_yield); }

void leave(int code) {
  for (;;) syscall(SYS_exit_group, code);
}

uint32_t command_line(char* into, uint32_t capacity) {
  const int file = static_cast<int>(syscall(SYS_openat, AT_FDCWD, "/proc/self/cmdline", O_RDONLY | O_CLOEXEC, 0));
  if (file < 0) return 0;
  const long count = syscall(SYS_read, file, into, capacity);
  syscall(SYS_close, file);
  return count > 0 ? static_cast<uint32_t>(count) : 0;
}

}  // namespace hs::os
