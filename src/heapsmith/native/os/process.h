// What the kernel knows of this process and its threads, by system calls that neither allocate nor touch errno.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace hs::os {

struct Usage {
  uint64_t resident_bytes_peak;
  uint64_t minor_faults;
  uint64_t major_faults;
};

// The program has begun to restrict its own system calls, and may be killed for one that we make: from then on none
// is made that the program might not make itself.
extern bool is_restricted;

// Keeps errno as the program left it.
class KeepErrno {
 public:
  KeepErrno();
  ~KeepErrno();
  KeepErrno(const KeepErrno&) = delete;
  KeepErrno& operator=(const KeepErrno&) = delete;

 private:
  int value_;
};

uint32_t process_id();
uint32_t parent_process_id();
uint32_t thread_id();
// The inode of the PID namespace that these ids hold in; 0 where the kernel would not say.
uint64_t pid_namespace();
void thread_name(char (&name)[16]);
// Of any thread of this process; left as it is where the kernel would not say.
void name_of_thread(uint32_t tid, char (&name)[16]);
uint64_t monotonic_ns();
uint64_t monotonic_coarse_ns();
uint64_t realtime_ns();
Usage usage();
// Another value after each exec, the same after fork.
uint64_t image_mark();
void yield_processor();
[[noreturn]] void leave(int code);

// main's: with them, `command_line` needs not ask the kernel.
void remember_arguments(int count, char** arguments);
// Copies what is in /proc/self/cmdline; answers the bytes written.
uint32_t command_line(char* into, uint32_t capacity);

}  // namespace hs::os
