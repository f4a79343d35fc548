// Where a forged heap enters a process: forks and the ends of threads are its business from then on.
#include <errno.h>
#include <pthread.h>

#include "abi/heap.h"

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

// First among the constructors of the libraries that were preloaded.
__attribute__((constructor(101))) void enter() {
  has_key = pthread_key_create(&end_of_thread, thread_ends) == 0;
  SpecHeap::on_thread_attached = thread_begins;
  // What allocated before was the main thread, whose end is the process's.
  pthread_atfork(SpecHeap::fork_prepare, SpecHeap::fork_parent, SpecHeap::fork_child);
}

}  // namespace

extern "C" {

// Gives back what holds no block; answers whether there was anything. `keep_bytes` is glibc's and does not
// apply.
HS_EXPORT int malloc_trim(size_t) { return SpecHeap::recycle() > 0 ? 1 : 0; }

// The calling thread allocates from the heap that was forged for threads of this name; "" is everybody's.
// Answers 0, or EINVAL where there is no such heap.
HS_EXPORT int heapsmith_use_heap(const char* name) { return SpecHeap::use_heap(name) ? 0 : EINVAL; }

}  // extern "C"
