// Where heapsmith enters a process and leaves it: before its constructors, around fork, at exit.
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "abi/heap.h"
#include "abi/report.h"
#include "base/atomic.h"
#include "os/process.h"
#include "probe/mappings.h"
#include "probe/python.h"
#include "probe/region.h"
#include "probe/thread.h"

// Not all of these are in every C library, musl among them: one that lacks some still has to start the program.
extern "C" {
int __register_atfork(void (*)(), void (*)(), void (*)(), void*) __attribute__((weak));
decltype(pthread_atfork) pthread_atfork __attribute__((weak));
decltype(on_exit) on_exit __attribute__((weak));
}

namespace {

using hs::TheHeap;
namespace os = hs::os;
namespace probe = hs::probe;
namespace wire = hs::wire;

pid_t (*next_fork)() = nullptr;
void (*next_quick_exit)(int) = nullptr;

void describe_process() {
  if (probe::region.header == nullptr) return;
  wire::RegionHeader& header = *probe::region.header;
  header.malloc_is_ours = TheHeap::functions().is_blind ? 0 : 1;
  header.allocator =
      static_cast<uint32_t>(TheHeap::functions().has_glibc_headers ? wire::Allocator::kGlibc : wire::Allocator::kOther);
  static_assert(sizeof header.allocator_path == sizeof TheHeap::functions().path);
  memcpy(header.allocator_path, TheHeap::functions().path, sizeof header.allocator_path);
  probe::describe_python();
  hs::report::tell_pools_again();
}

void note_exit(int code) {
  if (probe::region.header == nullptr) return;
  wire::RegionHeader& header = *probe::region.header;
  if (!os::is_restricted) {
    // A child of vfork leaves with the region of its parent before it.
    if (header.pid != os::process_id()) return;
    probe::refresh_names();
    const os::Usage usage = os::usage();
    header.exit_resident_bytes_peak = usage.resident_bytes_peak;
    header.exit_minor_faults = usage.minor_faults;
    header.exit_major_faults = usage.major_faults;
  }
  header.exit_code = code & 0xff;
  header.exit_ns = os::monotonic_ns();
  hs::store_release(header.exit_known, 1u);
}

void at_exit(int code, void*) { note_exit(code); }

void before_fork() {
  probe::mappings_fork_prepare();
  probe::fork_prepare();
}

void after_fork_in_parent() {
  probe::fork_parent();
  probe::mappings_fork_parent();
}

void after_fork_in_child() {
  probe::mappings_fork_child();
  probe::fork_child();
}

// First among the constructors of the libraries that were preloaded.
__attribute__((constructor(101))) void enter() {
  const os::KeepErrno keep;
  next_fork = reinterpret_cast<pid_t (*)()>(dlsym(RTLD_NEXT, "_Fork"));
  next_quick_exit = reinterpret_cast<void (*)(int)>(dlsym(RTLD_NEXT, "quick_exit"));
  dlerror();
  probe::on_region_open = describe_process;
  probe::attach();
  describe_process();  // others' constructors may have allocated, and so opened the region, before this one
  if (__register_atfork != nullptr) {
    __register_atfork(before_fork, after_fork_in_parent, after_fork_in_child, nullptr);
  } else if (pthread_atfork != nullptr) {
    pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
  }
  if (on_exit != nullptr) on_exit(at_exit, nullptr);
  probe::watch_python();
}

}  // namespace

extern "C" {

// The C library calls none of the handlers of fork around it.
HS_EXPORT pid_t _Fork(void) noexcept {
  if (next_fork == nullptr) {
    errno = ENOSYS;
    return -1;
  }
  before_fork();
  const pid_t child = next_fork();
  if (child == 0) {
    after_fork_in_child();
  } else {
    after_fork_in_parent();
  }
  return child;
}

// Its handlers may still leave with another code.
HS_EXPORT __attribute__((noreturn)) void quick_exit(int code) noexcept {
  note_exit(code);
  if (next_quick_exit != nullptr) next_quick_exit(code);
  os::leave(code);
}

HS_EXPORT __attribute__((noreturn)) void _exit(int code) {
  note_exit(code);
  os::leave(code);
}

HS_EXPORT __attribute__((noreturn)) void _Exit(int code) noexcept {
  note_exit(code);
  os::leave(code);
}

}  // extern "C"
