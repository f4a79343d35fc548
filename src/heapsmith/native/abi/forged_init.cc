// Where a forged heap enters a process: forks and the ends of threads are its business from then on.
#include <errno.h>
#include <pthread.h>

#include "abi/forged_region.h"
#include "abi/heap.h"
#include "abi/knobs.h"
#include "os/process.h"

namespace {

using hs::SpecHeap;

pthread_key_t end_of_thread;
bool has_key = false;

// Destructors of other keys may still free: ours asks to be called again until the last round but one.
constexpr intptr_t kRounds = 3;

void thread_ends(void* value) {
  const intptr_t round = reinterpret_cast<intptr_t>(value) + 1;
  if (round <= kRounds && pthread_setspecific(end_of_thread, reinterpret_cast<void*>(round)) == 0) return;
  SpecHeap::thread_exit();
}

void thread_begins() {
  if (has_key) pthread_setspecific(end_of_thread, reinterpret_cast<void*>(intptr_t{1}));
}

// The region first: its lock is taken by threads that hold none of the heap's.
void before_fork() {
  hs::forged_region::fork_prepare();
  SpecHeap::fork_prepare();
}
void after_fork_in_parent() {
  SpecHeap::fork_parent();
  hs::forged_region::fork_parent();
}
void after_fork_in_child() {
  SpecHeap::fork_child();
  hs::forged_region::fork_child();
}

// First among the constructors of the libraries that were preloaded.
__attribute__((constructor(101))) void enter([[maybe_unused]] int count, [[maybe_unused]] char** arguments) {
#ifdef __GLIBC__
  hs::os::remember_arguments(count, arguments);  // which glibc hands to every constructor
#endif
  hs::launch_knobs::read();
  has_key = pthread_key_create(&end_of_thread, thread_ends) == 0;
  SpecHeap::on_thread_attached = thread_begins;
  // What allocated before was the main thread, whose end is the process's.
  pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
  if (hs::launch_knobs::is_shown) hs::forged_region::prepare();
}

__attribute__((destructor(101))) void leave() { hs::forged_region::close(); }

}  // namespace

extern "C" {

// Gives back what holds no block; answers whether there was anything. `keep_bytes` is glibc's and does not
// apply.
HS_EXPORT int malloc_trim(size_t) { return SpecHeap::recycle() > 0 ? 1 : 0; }

// hs_recycle of heapsmith.h, for programs that have it from whoever is there.
HS_EXPORT int hs_recycle(void) { return SpecHeap::recycle() > 0 ? 0 /* HS_OK */ : 1 /* HS_FAILURE */; }

// The calling thread allocates from the heap that was forged for threads of this name; "" is everybody's.
// Answers 0, or EINVAL where there is no such heap.
HS_EXPORT int heapsmith_use_heap(const char* name) { return SpecHeap::use_heap(name) ? 0 : EINVAL; }

}  // extern "C"
