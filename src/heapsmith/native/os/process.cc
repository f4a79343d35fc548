#include "os/process.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

namespace hs::os {

bool is_restricted = false;

namespace {

const char* command_begin = nullptr;
size_t command_bytes = 0;

uint64_t clock_ns(clockid_t clock) {
  if (is_restricted) return 0;  // unknown: where the kernel's shortcut does not hold, asking is a system call
  timespec now = {};
  clock_gettime(clock, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(now.tv_nsec);
}

long read_whole(const char* path, char* into, size_t capacity) {
  const int file = static_cast<int>(syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0));
  if (file < 0) return 0;
  const long count = syscall(SYS_read, file, into, capacity);
  syscall(SYS_close, file);
  return count > 0 ? count : 0;
}

// Not getrusage's: that remembers what the process was before it executed this program.
uint64_t resident_bytes_peak() {
  char text[2048];
  text[read_whole("/proc/self/status", text, sizeof text - 1)] = '\0';
  const char* line = strstr(text, "VmHWM:");
  if (line == nullptr) return 0;
  uint64_t kibibytes = 0;
  for (const char* at = line + sizeof "VmHWM:" - 1; *at != '\n' && *at != '\0'; ++at) {
    if (*at >= '0' && *at <= '9') kibibytes = kibibytes * 10 + static_cast<uint64_t>(*at - '0');
  }
  return kibibytes * 1024;
}

}  // namespace

KeepErrno::KeepErrno() : value_(errno) {}
KeepErrno::~KeepErrno() { errno = value_; }

uint32_t process_id() { return static_cast<uint32_t>(syscall(SYS_getpid)); }
uint32_t parent_process_id() { return static_cast<uint32_t>(syscall(SYS_getppid)); }
uint64_t pid_namespace() {
  struct statx file = {};
  return syscall(SYS_statx, AT_FDCWD, "/proc/self/ns/pid", 0, STATX_INO, &file) == 0 ? file.stx_ino : 0;
}
uint32_t thread_id() { return static_cast<uint32_t>(syscall(SYS_gettid)); }
void thread_name(char (&name)[16]) { syscall(SYS_prctl, PR_GET_NAME, name, 0, 0, 0); }
void name_of_thread(uint32_t tid, char (&name)[16]) {
  char path[48] = "/proc/self/task/";
  char digits[11] = {};
  char* digit = digits + sizeof digits - 1;
  do {
    *--digit = static_cast<char>('0' + tid % 10);
    tid /= 10;
  } while (tid != 0);
  strcpy(path + strlen(path), digit);
  strcpy(path + strlen(path), "/comm");
  char text[17] = {};
  long count = read_whole(path, text, sizeof text - 1);
  if (count == 0) return;
  if (text[count - 1] == '\n') text[count - 1] = '\0';
  memcpy(name, text, sizeof name);
}
uint64_t monotonic_ns() { return clock_ns(CLOCK_MONOTONIC); }
uint64_t monotonic_coarse_ns() { return clock_ns(CLOCK_MONOTONIC_COARSE); }
uint64_t realtime_ns() { return clock_ns(CLOCK_REALTIME); }

Usage usage() {
  rusage seen = {};
  getrusage(RUSAGE_SELF, &seen);
  return {resident_bytes_peak(), static_cast<uint64_t>(seen.ru_minflt), static_cast<uint64_t>(seen.ru_majflt)};
}

uint64_t image_mark() { return getauxval(AT_RANDOM); }

void yield_processor() {
  if (!is_restricted) syscall(SYS_sched_yield);
}

void leave(int code) {
  for (;;) syscall(SYS_exit_group, code);
}

void remember_arguments(int count, char** arguments) {
  const char* end = count > 0 ? arguments[0] : nullptr;
  for (int i = 0; i < count; ++i) {
    if (arguments[i] != end) return;  // no longer as the kernel laid them out, one behind the other
    end += strlen(end) + 1;
  }
  command_begin = count > 0 ? arguments[0] : nullptr;
  command_bytes = static_cast<size_t>(end - command_begin);
}

uint32_t command_line(char* into, uint32_t capacity) {
  if (command_begin != nullptr) {
    const auto bytes = static_cast<uint32_t>(command_bytes < capacity ? command_bytes : capacity);
    memcpy(into, command_begin, bytes);
    return bytes;
  }
  return static_cast<uint32_t>(read_whole("/proc/self/cmdline", into, capacity));
}

}  // namespace hs::os
