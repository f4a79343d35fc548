// Plays a plan over whatever malloc this process has, and tells what it took.
//
//   replay PLAN [--idle | --stream]     one JSON document on standard output
//
// Threads begin and end as recorded; none gets further ahead of the slowest than the plan's window. What the player needs
// for itself lies in shared mappings (the plan, the table of blocks, stacks), so that anonymous resident memory is the
// heap's; the time that it waits, reads ahead or looks at /proc is told apart from the time of malloc's calls.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "replay/plan.h"

#define PAGE_BYTES 4096u
#define STACK_BYTES (256u << 10)
#define MOST_SAMPLES (1u << 16)
#define ENDED UINT64_MAX
#define FAILED ((void*)1)  // what stands in a slot for a block that malloc refused
#define AHEAD_WORDS 16
#define LOOK_NS 20000000u  // how often one who rests looks at the resident memory

struct sample {
  uint64_t order;
  uint64_t wall_ns;
  uint64_t anonymous_bytes;
};

struct player {
  _Alignas(128) _Atomic uint64_t position;  // everything of this thread before it is done
  uint64_t aside_cpu_ns;                    // spent on waiting and looking, not on malloc
  uint64_t aside_faults;
  uint64_t failures;
  const struct plan_thread* thread;
};

static const char* plan;
static const struct plan_header* header;
static const struct plan_thread* threads;
static const struct plan_segment* segments;
static const uint64_t* sample_orders;
static _Atomic(void*)* slots;
static _Atomic uint64_t* rests;  // when each ends, ns on the monotonic clock
static struct player* players;
static struct sample* samples;
static int streamed;  // the plan is too large to be resident as a whole, says who starts us
static int statm = -1;
static uint64_t began_ns;
static pthread_mutex_t starting = PTHREAD_MUTEX_INITIALIZER;
static pthread_attr_t attributes;
static uint64_t started;  // threads; guarded by `starting`
static _Atomic uint64_t next_start_order;
static _Atomic uint64_t horizon;
static _Atomic uint64_t running;
static _Atomic uint64_t first_live;
static atomic_flag sampling = ATOMIC_FLAG_INIT;
static _Atomic uint64_t next_sample_order;
static uint64_t samples_due, sample_count;

static void refuse(const char* why) {
  dprintf(2, "replay: %s: %s\n", why, strerror(errno));
  _exit(2);
}

static uint64_t clock_ns(clockid_t id) {
  struct timespec now;
  clock_gettime(id, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint64_t anonymous_bytes(void) {
  char text[128];
  const ssize_t length = pread(statm, text, sizeof text - 1, 0);
  if (length <= 0) return 0;
  text[length] = 0;
  char* at = text;
  strtoull(at, &at, 10);
  const uint64_t resident = strtoull(at, &at, 10);
  const uint64_t shared = strtoull(at, &at, 10);
  return resident > shared ? (resident - shared) * PAGE_BYTES : 0;
}

// Whatever happens between these two is no part of the heap's time and faults.
struct aside {
  uint64_t cpu_ns;
  long faults;
};
static long thread_faults(void) {
  struct rusage usage;
  getrusage(RUSAGE_THREAD, &usage);
  return usage.ru_minflt + usage.ru_majflt;
}
static struct aside step_aside(void) {
  const struct aside now = {clock_ns(CLOCK_THREAD_CPUTIME_ID), thread_faults()};
  return now;
}
static void step_back(struct player* self, struct aside since) {
  self->aside_cpu_ns += clock_ns(CLOCK_THREAD_CPUTIME_ID) - since.cpu_ns;
  self->aside_faults += (uint64_t)(thread_faults() - since.faults);
}

static void look(uint64_t order) {
  if (atomic_flag_test_and_set_explicit(&sampling, memory_order_acquire)) return;
  if (sample_count < MOST_SAMPLES) {
    const struct sample now = {order, clock_ns(CLOCK_MONOTONIC) - began_ns, anonymous_bytes()};
    samples[sample_count++] = now;
  }
  while (samples_due < header->sample_count && sample_orders[samples_due] <= order) samples_due++;
  atomic_store_explicit(&next_sample_order, samples_due < header->sample_count ? sample_orders[samples_due] : ENDED,
                        memory_order_relaxed);
  atomic_flag_clear_explicit(&sampling, memory_order_release);
}

static void* play_thread(void* argument);

// A thread is started by whoever reaches its first event.
static void start_threads(uint64_t order) {
  if (pthread_mutex_trylock(&starting) != 0) return;
  while (started < header->thread_count && threads[started].first_order <= order) {
    struct player* player = &players[started];
    player->thread = &threads[started];
    atomic_store_explicit(&player->position, player->thread->first_order, memory_order_release);
    atomic_fetch_add(&running, 1);
    started++;
    void* stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    pthread_t id;
    if (stack == MAP_FAILED || pthread_attr_setstack(&attributes, stack, STACK_BYTES) != 0) refuse("no stack");
    if ((errno = pthread_create(&id, &attributes, play_thread, player)) != 0) refuse("cannot start a thread");
    // Only now may the horizon pass its beginning.
    atomic_store_explicit(&next_start_order, started < header->thread_count ? threads[started].first_order : ENDED,
                          memory_order_release);
  }
  pthread_mutex_unlock(&starting);
}

// The first event that is not known to be done.
static uint64_t find_horizon(void) {
  uint64_t least = atomic_load_explicit(&next_start_order, memory_order_acquire);
  const uint64_t count = header->thread_count;
  uint64_t first = atomic_load_explicit(&first_live, memory_order_relaxed);
  while (first < count && atomic_load_explicit(&players[first].position, memory_order_acquire) == ENDED) first++;
  atomic_store_explicit(&first_live, first, memory_order_relaxed);
  for (uint64_t i = first; i < count; i++) {
    if (!players[i].thread) break;
    const uint64_t position = atomic_load_explicit(&players[i].position, memory_order_acquire);
    if (position < least) least = position;
  }
  return least;
}

static void pause_for(unsigned round) {
  if (round < 32) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  } else if (round < 48) {
    sched_yield();
  } else {
    const struct timespec moment = {0, 50000};
    nanosleep(&moment, NULL);
  }
}

// Until nobody is further behind `order` than `window`.
static void keep_order(struct player* self, uint64_t order, uint64_t window) {
  const struct aside since = step_aside();
  for (unsigned round = 0;; round++) {
    const uint64_t now = find_horizon();
    atomic_store_explicit(&horizon, now, memory_order_relaxed);
    if (order <= now || order - now <= window) break;
    if (now >= atomic_load_explicit(&next_start_order, memory_order_relaxed)) start_threads(now);
    pause_for(round);
  }
  step_back(self, since);
}

static void sync_at(struct player* self, uint64_t order) {
  atomic_store_explicit(&self->position, order, memory_order_release);
  if (order >= atomic_load_explicit(&next_start_order, memory_order_relaxed)) start_threads(order);
  const uint64_t known = atomic_load_explicit(&horizon, memory_order_relaxed);
  if (order > known && order - known > header->window) keep_order(self, order, header->window);
  if (order >= atomic_load_explicit(&next_sample_order, memory_order_relaxed)) {
    const struct aside since = step_aside();
    look(order);
    step_back(self, since);
  }
}

// Sleeps until a moment on the monotonic clock, and looks at the memory meanwhile: it may be given back without a call.
static void sleep_until(struct player* self, uint64_t until_ns) {
  const struct aside since = step_aside();
  for (uint64_t now; (now = clock_ns(CLOCK_MONOTONIC)) < until_ns;) {
    const uint64_t wake_ns = until_ns - now > LOOK_NS ? now + LOOK_NS : until_ns;
    const struct timespec moment = {(time_t)(wake_ns / 1000000000u), (long)(wake_ns % 1000000000u)};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &moment, NULL);
    if (wake_ns != until_ns) look(atomic_load_explicit(&self->position, memory_order_relaxed));
  }
  step_back(self, since);
}

static void rest(struct player* self, uint32_t number, int decides, uint64_t rest_ns, uint64_t order) {
  if (decides) {
    keep_order(self, order, 0);
    atomic_store_explicit(&rests[number], clock_ns(CLOCK_MONOTONIC) + rest_ns, memory_order_release);
  } else {
    const struct aside since = step_aside();
    for (unsigned round = 0; !atomic_load_explicit(&rests[number], memory_order_acquire); round++) {
      const uint64_t now = find_horizon();
      if (now >= atomic_load_explicit(&next_start_order, memory_order_relaxed)) start_threads(now);
      pause_for(round);
    }
    step_back(self, since);
  }
  sleep_until(self, atomic_load_explicit(&rests[number], memory_order_relaxed));
}

static void touch(char* block, size_t from, size_t bytes) {
  for (size_t at = from; at < bytes; at += PAGE_BYTES) *(volatile char*)(block + at) = 1;
  if (bytes > from) *(volatile char*)(block + bytes - 1) = 1;
}

static void put(struct player* self, uint32_t slot, char* block, size_t from, size_t bytes) {
  if (block) {
    touch(block, from, bytes);
  } else {
    self->failures++;
    block = FAILED;
  }
  // Pairs with the acquire in `take`.
  atomic_store_explicit(&slots[slot], block, memory_order_release);
}

// Another thread may have to allocate it first.
static void* take(struct player* self, uint32_t slot) {
  void* block = atomic_load_explicit(&slots[slot], memory_order_acquire);
  if (__builtin_expect(!block, 0)) {
    const struct aside since = step_aside();
    for (unsigned round = 0; !(block = atomic_load_explicit(&slots[slot], memory_order_acquire)); round++) {
      // Its thread may still have to begin, between the place that this one told last and where it is.
      const uint64_t reached = atomic_load_explicit(&self->position, memory_order_relaxed) + header->sync_events;
      if (reached >= atomic_load_explicit(&next_start_order, memory_order_relaxed)) start_threads(reached);
      pause_for(round);
    }
    step_back(self, since);
  }
  atomic_store_explicit(&slots[slot], NULL, memory_order_relaxed);
  return block == FAILED ? NULL : block;
}

static void play_segment(struct player* self, const struct plan_segment* segment) {
  const uint64_t* word = (const uint64_t*)(plan + segment->words_at);
  const uint64_t* end = word + segment->word_count;
  size_t high = 0;
  unsigned alignment = 0;
  void* taken = NULL;
  uint64_t order = 0;
  for (; word < end; word++) {
    // Of the player's own table, so that waiting for it is not taken for the heap's time; of the blocks nothing.
    if (word + AHEAD_WORDS < end) __builtin_prefetch(&slots[word[AHEAD_WORDS] >> 32], 1);
    const uint32_t slot = (uint32_t)(*word >> 32);
    const size_t bytes = high | ((*word >> 4) & 0xfffffff);
    switch ((enum plan_operation)(*word & 15)) {
      case PLAN_SYNC:
        order = *word >> 4;
        sync_at(self, order);
        continue;
      case PLAN_WIDE:
        high = (size_t)slot << 28;
        alignment = bytes & 63;
        continue;
      case PLAN_ALLOCATE:
        put(self, slot, malloc(bytes), 0, bytes);
        break;
      case PLAN_ZEROED:
        put(self, slot, calloc(1, bytes), 0, bytes);
        break;
      case PLAN_ALIGNED: {
        void* block = NULL;
        const size_t wanted = (size_t)1 << (alignment < 3 ? 3 : alignment);
        if (posix_memalign(&block, wanted, bytes) != 0) block = NULL;
        put(self, slot, block, 0, bytes);
        break;
      }
      case PLAN_FREE:
        free(take(self, slot));
        break;
      case PLAN_TAKE:
        taken = take(self, slot);
        continue;
      case PLAN_REALLOCATE: {
        void* moved = realloc(taken, bytes ? bytes : 1);
        if (!moved) free(taken);
        taken = NULL;
        put(self, slot, moved, 0, bytes);
        break;
      }
      case PLAN_UNTIL:
        sleep_until(self, began_ns + (*word >> 4));
        continue;
      case PLAN_REST: {
        const int decides = bytes & 1;
        rest(self, slot, decides, word[1], order);
        word++;
        continue;
      }
      case PLAN_OPERATIONS:
      default:
        errno = EINVAL;
        refuse("the plan is damaged");
    }
    high = 0;
    alignment = 0;
  }
}

static void play(struct player* self) {
  for (uint32_t at = self->thread->first_segment; at != NO_SEGMENT;) {
    const struct plan_segment* segment = &segments[at];
    const uintptr_t start = (uintptr_t)(plan + segment->words_at) & ~(uintptr_t)(PAGE_BYTES - 1);
    const size_t bytes = (uintptr_t)(plan + segment->words_at) + segment->word_count * sizeof(uint64_t) - start;
    if (streamed) {
      const struct aside since = step_aside();
      madvise((void*)start, bytes, MADV_POPULATE_READ);
      step_back(self, since);
    }
    play_segment(self, segment);
    if (streamed) {
      const struct aside since = step_aside();
      madvise((void*)start, bytes, MADV_DONTNEED);
      step_back(self, since);
    }
    at = segment->next;
  }
  atomic_store_explicit(&self->position, ENDED, memory_order_release);
}

static void* play_thread(void* argument) {
  struct player* self = argument;
  play(self);
  atomic_fetch_sub(&running, 1);
  if (!self->thread->ends) {
    // It outlived the recording: what its cache holds is still held at the end.
    for (;;) pause();
  }
  return NULL;
}

static void* map_shared(size_t bytes) {
  void* memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (memory == MAP_FAILED) refuse("no memory for the player's tables");
  return memory;
}

static void open_plan(const char* path) {
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  struct stat state;
  if (file < 0 || fstat(file, &state) != 0) refuse(path);
  const uint64_t bytes = (uint64_t)state.st_size;
  plan = mmap(NULL, bytes, PROT_READ, MAP_SHARED | (streamed ? 0 : MAP_POPULATE), file, 0);
  if (plan == MAP_FAILED) refuse(path);
  close(file);
  header = (const struct plan_header*)plan;
  errno = EINVAL;
  if (bytes < sizeof *header || header->magic != PLAN_MAGIC) refuse("not a plan");
  threads = (const struct plan_thread*)(plan + header->threads_at);
  segments = (const struct plan_segment*)(plan + header->segments_at);
  sample_orders = (const uint64_t*)(plan + header->samples_at);
}

static char output[1 << 16];
static size_t output_bytes;
static void flush_output(void) {
  for (size_t at = 0; at < output_bytes;) {
    const ssize_t written = write(1, output + at, output_bytes - at);
    if (written <= 0) _exit(2);
    at += (size_t)written;
  }
  output_bytes = 0;
}
__attribute__((format(printf, 1, 2))) static void tell(const char* format, ...) {
  if (output_bytes > sizeof output - 512) flush_output();
  va_list arguments;
  va_start(arguments, format);
  output_bytes += (size_t)vsnprintf(output + output_bytes, 512, format, arguments);
  va_end(arguments);
}
static void tell_samples(const char* name, size_t member) {
  tell(",\"%s\":[", name);
  for (uint64_t i = 0; i < sample_count; i++)
    tell("%s%llu", i ? "," : "", (unsigned long long)*(uint64_t*)((char*)&samples[i] + member));
  tell("]");
}

int main(int argument_count, char** arguments) {
  if (argument_count < 2) {
    dprintf(2, "replay: no plan\n");
    return 2;
  }
  const int idle = argument_count > 2 && strcmp(arguments[2], "--idle") == 0;
  streamed = idle || (argument_count > 2 && strcmp(arguments[2], "--stream") == 0);
  open_plan(arguments[1]);
  slots = map_shared((header->slot_count + 1) * sizeof *slots);
  rests = map_shared((header->rest_count + 1) * sizeof *rests);
  players = map_shared(header->thread_count * sizeof *players);
  samples = map_shared(MOST_SAMPLES * sizeof *samples);
  statm = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
  if (statm < 0) refuse("/proc/self/statm");
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  anonymous_bytes();
  if (idle) {
    dprintf(1, "{\"anonymous_bytes\":%llu}\n", (unsigned long long)anonymous_bytes());
    return 0;
  }

  struct rusage before, after;
  began_ns = clock_ns(CLOCK_MONOTONIC);
  atomic_store(&next_sample_order, header->sample_count ? sample_orders[0] : ENDED);
  players[0].thread = &threads[0];
  atomic_store(&players[0].position, threads[0].first_order);
  started = 1;
  atomic_store(&next_start_order, header->thread_count > 1 ? threads[1].first_order : ENDED);
  getrusage(RUSAGE_SELF, &before);
  const uint64_t cpu_before_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
  play(&players[0]);
  struct aside since = step_aside();
  while (started < header->thread_count || atomic_load(&running) > 0) {
    start_threads(find_horizon());
    pause_for(64);
  }
  step_back(&players[0], since);
  const uint64_t cpu_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu_before_ns;
  const uint64_t wall_ns = clock_ns(CLOCK_MONOTONIC) - began_ns;
  getrusage(RUSAGE_SELF, &after);
  look(ENDED);

  uint64_t aside_cpu_ns = 0, aside_faults = 0, failures = 0;
  for (uint64_t i = 0; i < header->thread_count; i++) {
    aside_cpu_ns += players[i].aside_cpu_ns;
    aside_faults += players[i].aside_faults;
    failures += players[i].failures;
  }
  const uint64_t faults =
      (uint64_t)(after.ru_minflt - before.ru_minflt) + (uint64_t)(after.ru_majflt - before.ru_majflt);
  const uint64_t system_ns = (uint64_t)(after.ru_stime.tv_sec - before.ru_stime.tv_sec) * 1000000000u +
                             (uint64_t)(after.ru_stime.tv_usec - before.ru_stime.tv_usec) * 1000u;
  tell("{\"wall_ns\":%llu,\"cpu_ns\":%llu,\"aside_cpu_ns\":%llu,\"system_ns\":%llu,\"page_faults\":%llu,",
       (unsigned long long)wall_ns, (unsigned long long)cpu_ns, (unsigned long long)aside_cpu_ns,
       (unsigned long long)system_ns, (unsigned long long)(faults > aside_faults ? faults - aside_faults : 0));
  tell("\"failures\":%llu,\"streamed\":%s", (unsigned long long)failures, streamed ? "true" : "false");
  tell_samples("orders", offsetof(struct sample, order));
  tell_samples("sampled_ns", offsetof(struct sample, wall_ns));
  tell_samples("anonymous_bytes", offsetof(struct sample, anonymous_bytes));
  tell("}\n");
  flush_output();
  // Nothing that threads or the allocator do at the end of a process is of interest any more.
  _exit(0);
}
