// Where a recording enters a process and leaves it: before its constructors, around fork, at exit.
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "abi/heap.h"
#include "base/atomic.h"
#include "os/process.h"
#include "probe/python.h"
#include "record/entries.h"
#include "record/ring.h"
#include "record/unwind.h"

extern "C" {
int __register_atfork(void (*)(), void (*)(), void (*)(), void*) __attribute__((weak));
decltype(pthread_atfork) pthread_atfork __attribute__((weak));
decltype(on_exit) on_exit __attribute__((weak));
}

namespace {

using hs::TheHeap;
namespace os = hs::os;
namespace record = hs::record;
namespace wire = hs::wire;

pid_t (*next_fork)() = nullptr;
void (*next_quick_exit)(int) = nullptr;

void describe_process() {
  wire::RecordingHeader& header = *record::recording.header;
  header.is_blind = TheHeap::functions().is_blind ? 1 : 0;
  static_assert(sizeof header.allocator_path == sizeof TheHeap::functions().path);
  memcpy(header.allocator_path, TheHeap::functions().path, sizeof header.allocator_path);
  hs::probe::describe_python();
}

void note_exit(int code) {
  if (record::recording.header == nullptr) return;
  wire::RecordingHeader& header = *record::recording.header;
  // A child of vfork leaves with the file of its parent before it.
  if (!os::is_restricted && header.pid != os::process_id()) return;
  if (!os::is_restricted) record::refresh_names();
  header.exit_code = code & 0xff;
  header.exit_ns = os::monotonic_ns();
  hs::store_release(header.exit_known, 1u);
}

void at_exit(int code, void*) { note_exit(code); }

void after_fork_in_child() { record::fork_child(); }

// First among the constructors of the libraries that were preloaded.
__attribute__((constructor(101))) void enter() {
  const os::KeepErrno keep;
  next_fork = reinterpret_cast<pid_t (*)()>(dlsym(RTLD_NEXT, "_Fork"));
  next_quick_exit = reinterpret_cast<void (*)(int)>(dlsym(RTLD_NEXT, "quick_exit"));
  dlerror();
  TheHeap::functions();
  record::on_recording_open = describe_process;
  record::attach();
  // Others' constructors may have allocated, and so opened the file, before this one.
  if (record::recording.header != nullptr) describe_process();
  if (__register_atfork != nullptr) {
    __register_atfork(nullptr, nullptr, after_fork_in_child, nullptr);
  } else if (pthread_atfork != nullptr) {
    pthread_atfork(nullptr, nullptr, after_fork_in_child);
  }
  if (on_exit != nullptr) on_exit(at_exit, nullptr);
  if (record::is_recording()) hs::probe::watch_python();
}

}  // namespace

extern "C" {

// The C library calls none of the handlers of fork around it.
HS_EXPORT pid_t _Fork(void) noexcept {
  if (next_fork == nullptr) {
    errno = ENOSYS;
    return -1;
  }
  const pid_t child = next_fork();
  if (child == 0) after_fork_in_child();
  return child;
}

// What lay in an object that goes may be something else later.
HS_EXPORT int dlclose(void* object) noexcept {
  static int (*next_dlclose)(void*) = nullptr;
  if (next_dlclose == nullptr) next_dlclose = reinterpret_cast<int (*)(void*)>(dlsym(RTLD_NEXT, "dlclose"));
  const int result = next_dlclose(object);
  record::forget_rules();
  return result;
}

// Begins to record this process, which was started without us (or has stopped before): 0, or why it cannot be: 1, it is
// being recorded; 2, there is no recorder in the directory.
HS_EXPORT int hs_record_start(const char* directory) {
  const os::KeepErrno keep;
  if (record::is_recording()) return 1;
  record::set_directory(directory);
  static bool is_redirected = false;
  // Not called by the order of libraries: loaded into a process that runs already.
  if (is_redirected || dlsym(RTLD_DEFAULT, "malloc") != reinterpret_cast<void*>(malloc)) {
    TheHeap::see_all();
    if (!record::begin_again()) return 2;
    if (!is_redirected) {
      hs::probe::watch_running_python();
      record::redirect_calls();
    }
    is_redirected = true;
    return 0;
  }
  return record::begin_again() ? 0 : 2;
}

HS_EXPORT void hs_record_stop() {
  const os::KeepErrno keep;
  record::shut();
}

HS_EXPORT int hs_record_mark(const char* name) {
  const os::KeepErrno keep;
  if (!record::is_recording()) return 1;
  record::put_mark(name);
  return 0;
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
