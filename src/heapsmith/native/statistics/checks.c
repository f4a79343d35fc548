/* The promises of the statistics call, one at a time, on whatever allocator answers malloc:
 *
 *   heapsmith_statistics_checks --list        name, tab, promise
 *   heapsmith_statistics_checks NAME          exit 0: kept; 1: broken; 77: not possible here; why, on
 * standard output
 *
 * The tests of Open Enclave's bigmalloc and memory are here, with budgets from the call itself and their
 * faults repaired. */
#define _GNU_SOURCE 1
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "abi/heapsmith.h"

enum { kUnsupported = 77, kKiB = 1024, kMiB = 1024 * 1024 };

#define BROKEN(...) (printf(__VA_ARGS__), exit(1))
#define MUST(condition, ...)               \
  do {                                     \
    if (!(condition)) BROKEN(__VA_ARGS__); \
  } while (0)
#define NOT_POSSIBLE(...) (printf(__VA_ARGS__), exit(kUnsupported))

/* What the compiler must not see through. */
static void* volatile hidden;
static void* hide(void* block) {
  hidden = block;
  return hidden;
}

static hs_stats_t look(unsigned flags) {
  hs_stats_t stats = HS_STATS_INIT;
  const int result = hs_stats_get(&stats, flags);
  if (result == HS_UNSUPPORTED) NOT_POSSIBLE("nobody answers the call here");
  MUST(result == HS_OK, "hs_stats_get answers %d", result);
  if (!(stats.valid & HS_F_CURRENT)) NOT_POSSIBLE("nobody knows what is allocated");
  return stats;
}

static uint64_t current(void) { return look(HS_EXACT).current_bytes; }

/* A budget of our own, so that no check can hurt the machine: answers what is available in it. */
static uint64_t limit_to(uint64_t bytes) {
  const int result = hs_limit_set(current() + bytes, 0);
  if (result == HS_UNSUPPORTED) NOT_POSSIBLE("no limit can be set here");
  MUST(result == HS_OK, "hs_limit_set answers %d", result);
  const hs_stats_t stats = look(HS_EXACT);
  MUST(stats.valid & HS_F_AVAILABLE, "a limit is set and what is available is unknown");
  MUST(stats.limit_source == HS_SOURCE_CAP || stats.available_bytes < bytes, "the limit is not by whom it was set");
  return stats.available_bytes;
}

/* What the threads' caches, buffers of the C library and such may move by themselves. */
static void must_be_back(uint64_t before, const char* after_what) {
  const uint64_t now = current();
  MUST(now <= before + 4096, "%llu bytes more are allocated after %s", (unsigned long long)(now - before), after_what);
}

static void big_block(void) {
  const uint64_t available = limit_to(64 * kMiB);
  const uint64_t before = current();
  const hs_stats_t stats = look(HS_EXACT);
  const size_t wanted = (size_t)((double)available * 0.99);
  if (!(stats.valid & HS_F_LARGEST_BLOCK)) NOT_POSSIBLE("the largest block is unknown");
  const size_t promised = (size_t)stats.largest_block_bytes;
  char* block = hide(malloc(promised));
  MUST(block, "%zu bytes are promised in one block and not given", promised);
  block[0] = block[promised - 1] = 1;
  MUST(current() >= before + promised, "a block of %zu bytes is live and not counted", promised);
  free(block);
  must_be_back(before, "the block was freed");
  if (promised < wanted) {
    NOT_POSSIBLE("this allocator promises one block of %.1f %% of what is available, and gives it",
                 100.0 * (double)promised / (double)available);
  }
  block = hide(malloc(wanted));
  MUST(block, "99 %% of what is available cannot be had in one block");
  block[0] = block[wanted - 1] = 1;
  free(block);
  must_be_back(before, "the block was freed");
}

static void big_pieces(void) {
  enum { kPiece = 1000 };
  const uint64_t available = limit_to(64 * kMiB);
  const uint64_t before = current();
  void** last = NULL;
  for (;;) {
    void** block = hide(malloc(kPiece));
    if (block == NULL) break;
    *block = last;
    last = block;
  }
  const uint64_t had = current() - before;
  while (last != NULL) {
    void** next = *last;
    free(last);
    last = next;
  }
  MUST((double)had >= 0.99 * (double)available, "only %.2f %% of what was available was given in blocks of %d bytes",
       100.0 * (double)had / (double)available, kPiece);
  MUST(had <= available + 65536, "more was given than was available");
  must_be_back(before, "all was freed");
}

static void basic(void) {
  errno = 0;
  void* nothing = hide(malloc(0));
  MUST(errno == 0, "malloc(0) sets errno");
  free(nothing);
  int* numbers = hide(malloc(256 * sizeof *numbers));
  MUST(numbers, "256 numbers cannot be had");
  for (int i = 0; i < 256; ++i) numbers[i] = i;
  for (int i = 0; i < 256; ++i) MUST(numbers[i] == i, "number %d is not what was written", i);
  free(numbers);
  limit_to(64 * kMiB);
  errno = 0;
  MUST(hide(malloc((size_t)1 << 32)) == NULL && errno == ENOMEM, "4 GiB beyond the limit do not give NULL and ENOMEM");
}

static void zeroed(void) {
  free(hide(calloc(0, 0)));
  for (int round = 0; round < 4; ++round) { /* again where something was written before */
    int* numbers = hide(calloc(256, sizeof *numbers));
    MUST(numbers, "256 numbers cannot be had");
    for (int i = 0; i < 256; ++i) MUST(numbers[i] == 0, "number %d of calloc is not 0", i);
    memset(numbers, 0xAA, 256 * sizeof *numbers);
    free(numbers);
  }
  errno = 0;
  volatile size_t half = (size_t)1 << 33;
  MUST(hide(calloc(half, half)) == NULL && errno == ENOMEM, "a product that overflows does not give NULL and ENOMEM");
  limit_to(64 * kMiB);
  errno = 0;
  MUST(hide(calloc(1, (size_t)1 << 32)) == NULL && errno == ENOMEM, "4 GiB do not give NULL and ENOMEM");
}

static void resized(void) {
  int* numbers = hide(realloc(NULL, 256 * sizeof *numbers));
  MUST(numbers, "realloc(NULL) gives nothing");
  for (int i = 0; i < 256; ++i) numbers[i] = i;
  numbers = hide(realloc(numbers, 1024 * sizeof *numbers));
  MUST(numbers, "the block cannot grow");
  for (int i = 0; i < 256; ++i) MUST(numbers[i] == i, "number %d was lost when the block grew", i);
  numbers = hide(realloc(numbers, 16 * sizeof *numbers));
  numbers = hide(realloc(numbers, 16 * sizeof *numbers));
  for (int i = 0; i < 16; ++i) MUST(numbers[i] == i, "number %d was lost when the block shrank", i);
  limit_to(64 * kMiB);
  errno = 0;
  MUST(hide(realloc(numbers, (size_t)1 << 32)) == NULL && errno == ENOMEM, "4 GiB do not give NULL and ENOMEM");
  for (int i = 0; i < 16; ++i) MUST(numbers[i] == i, "number %d was lost when realloc failed", i);
  free(numbers);
  free(hide(realloc(NULL, 0)));
}

static void aligned(void) {
  const uint64_t before = current();
  for (size_t alignment = 8; alignment <= 65536; alignment *= 2) {
    char* block = hide(memalign(alignment, 1000));
    MUST(block && (uintptr_t)block % alignment == 0, "a block is not at a multiple of %zu", alignment);
    MUST(current() >= before + 1000, "an aligned block is not counted");
    memset(block, 1, 1000);
    free(block);
  }
  must_be_back(before, "aligned blocks were freed");
  limit_to(64 * kMiB);
  errno = 0;
  MUST(hide(memalign(64, (size_t)1 << 32)) == NULL && errno == ENOMEM, "4 GiB do not give NULL and ENOMEM");
}

static void posix_aligned(void) {
  void* block = NULL;
  for (size_t alignment = sizeof(void*); alignment <= 4096; alignment *= 2) {
    MUST(posix_memalign(&block, alignment, 100) == 0 && (uintptr_t)block % alignment == 0, "no block at %zu",
         alignment);
    free(hide(block));
  }
  volatile size_t odd[] = {2, 63};
  for (int i = 0; i < 2; ++i)
    MUST(posix_memalign(&block, odd[i], 100) == EINVAL, "alignment %zu is not EINVAL", odd[i]);
  volatile size_t huge = (size_t)1 << 62;
  MUST(posix_memalign(&block, 64, huge) == ENOMEM, "2^62 bytes are not ENOMEM");
}

static void usable(void) {
  unsigned char* blocks[64];
  for (int i = 0; i < 64; ++i) {
    blocks[i] = hide(malloc(8 + 24 * (size_t)i));
    const size_t bytes = malloc_usable_size(blocks[i]);
    MUST(bytes >= 8 + 24 * (size_t)i, "fewer bytes are usable than were asked for");
    memset(blocks[i], i, bytes); /* all of it may be written */
  }
  for (int i = 0; i < 64; ++i) {
    const size_t bytes = malloc_usable_size(blocks[i]);
    for (size_t at = 0; at < bytes; ++at) MUST(blocks[i][at] == i, "the usable bytes of two blocks overlap");
    free(blocks[i]);
  }
}

/* A sequence of its own for each thread. */
static uint32_t draw(uint32_t* state) {
  *state ^= *state << 13;
  *state ^= *state >> 17;
  *state ^= *state << 5;
  return *state;
}

struct stress {
  uint32_t seed;
  uint64_t budget;
};

static void* stress_one(void* of) {
  enum { kBlocks = 400, kSteps = 20000 };
  const struct stress* job = of;
  uint32_t state = job->seed;
  unsigned char* blocks[kBlocks] = {NULL};
  size_t sizes[kBlocks] = {0};
  unsigned char marks[kBlocks] = {0};
  uint64_t held = 0;
  for (int step = 0; step < kSteps; ++step) {
    const uint32_t at = draw(&state) % kBlocks;
    if (blocks[at] != NULL) {
      for (size_t i = 0; i < sizes[at]; i += sizes[at] / 7 + 1) {
        MUST(blocks[at][i] == marks[at], "a block does not hold what was written into it");
      }
    }
    const uint32_t kind = draw(&state) % 100;
    const size_t bytes = 1 + draw(&state) % (kind < 20 ? 64u : kind < 50 ? 4096u : kind < 95 ? 65536u : 1048576u);
    if (blocks[at] != NULL && (draw(&state) % 2 == 0 || held + bytes > job->budget)) {
      held -= sizes[at];
      free(blocks[at]);
      blocks[at] = NULL;
      continue;
    }
    if (held + bytes > job->budget) continue;
    unsigned char* block = blocks[at] != NULL ? realloc(blocks[at], bytes)
                           : step % 2 == 0    ? malloc(bytes)
                                              : calloc(1, bytes);
    MUST(block, "an allocation within the budget fails");
    held += bytes - (blocks[at] != NULL ? sizes[at] : 0);
    blocks[at] = block;
    sizes[at] = bytes;
    marks[at] = (unsigned char)(draw(&state) | 1);
    memset(block, marks[at], bytes);
  }
  for (int i = 0; i < kBlocks; ++i) free(blocks[i]);
  return NULL;
}

static void stress_by(uint32_t threads) {
  const uint64_t available = limit_to(96 * kMiB);
  /* A first round brings what a thread needs for itself; the second must leave nothing behind. */
  uint64_t before = 0;
  for (int round = 0; round < 2; ++round) {
    before = current();
    pthread_t all[8];
    struct stress jobs[8];
    for (uint32_t i = 0; i < threads; ++i) {
      jobs[i] = (struct stress){i + 1, available / 2 / threads};
      MUST(pthread_create(&all[i], NULL, stress_one, &jobs[i]) == 0, "no thread");
    }
    for (uint32_t i = 0; i < threads; ++i) pthread_join(all[i], NULL);
  }
  must_be_back(before, "the stress");
  const hs_stats_t stats = look(HS_EXACT);
  MUST(stats.peak_bytes >= stats.current_bytes, "the peak is below what is live");
}
static void stress_alone(void) { stress_by(1); }
static void stress_together(void) { stress_by(4); }

static void boundaries(void) {
  enum { kCount = 1024, kBytes = 1024 };
  static char* blocks[kCount];
  char on_stack[kBytes];
  char* mapped = mmap(NULL, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  char* own = hide(malloc(kBytes));
  memset(on_stack, 1, kBytes);
  memset(mapped, 2, kBytes);
  memset(own, 3, kBytes);
  for (int i = 0; i < kCount; ++i) {
    blocks[i] = hide(malloc(kBytes));
    MUST(blocks[i], "no block");
    const uintptr_t at = (uintptr_t)blocks[i];
    MUST(at + kBytes <= (uintptr_t)on_stack || at >= (uintptr_t)on_stack + kBytes, "a block lies in the stack");
    MUST(at + kBytes <= (uintptr_t)mapped || at >= (uintptr_t)mapped + kBytes, "a block lies in the program's mapping");
    memset(blocks[i], i, kBytes);
  }
  for (int i = 0; i < kBytes; ++i)
    MUST(on_stack[i] == 1 && mapped[i] == 2 && own[i] == 3, "somebody else's bytes changed");
  for (int i = 0; i < kCount; ++i) {
    for (int at = 0; at < kBytes; ++at) MUST(blocks[i][at] == (char)i, "two blocks overlap");
    free(blocks[i]);
  }
  free(own);
}

static void fixed_fragments(void) {
  free(hide(malloc(1024)));
  const uint64_t before = current();
  for (int i = 0; i < 1000000; ++i) free(hide(malloc(1024)));
  MUST(current() == before, "%lld bytes are left", (long long)(current() - before));
}

static void random_fragments(void) {
  enum { kKept = 128 };
  static void* kept[kKept];
  uint32_t state = 4711;
  limit_to(64 * kMiB);
  const uint64_t before = current();
  for (int i = 0; i < 200000; ++i) {
    const hs_stats_t stats = look(HS_FAST);
    /* Of what is available, not of what is allocated: on an empty heap that is 0. */
    const uint64_t room = stats.available_bytes / 256 + 1;
    void** place = &kept[draw(&state) % kKept];
    free(*place);
    *place = hide(malloc(1 + draw(&state) % room));
    MUST(*place, "%llu bytes are available, and a small part of them is not given",
         (unsigned long long)stats.available_bytes);
  }
  for (int i = 0; i < kKept; ++i) free(kept[i]);
  must_be_back(before, "all was freed");
}

static void highest(void) {
  const uint64_t base = look(HS_EXACT).peak_bytes;
  char* block = hide(malloc((size_t)base + 32 * kMiB));
  MUST(block, "no block");
  const uint64_t with = current();
  free(block);
  const hs_stats_t after = look(HS_EXACT);
  if (!(after.valid & HS_F_PEAK)) NOT_POSSIBLE("nobody knows the peak");
  MUST(after.peak_bytes >= with, "the peak is below what has been live");
  MUST(after.peak_bytes <= with + after.peak_error_bound_bytes + 65536, "the peak is above anything that was live");
  MUST(after.current_bytes < with, "the block is still counted");
}

static void monotone(void) {
  uint64_t peak = 0, sequence = 0, time_ns = 0, failures = 0;
  uint32_t state = 99;
  static void* kept[64];
  for (int i = 0; i < 5000; ++i) {
    void** place = &kept[draw(&state) % 64];
    free(*place);
    *place = hide(malloc(draw(&state) % 100000));
    const hs_stats_t stats = look(i % 2 == 0 ? HS_FAST : HS_EXACT);
    MUST(stats.peak_bytes >= peak && stats.peak_bytes >= stats.current_bytes, "the peak has fallen");
    MUST(stats.sequence > sequence && stats.failures >= failures, "a counter has fallen");
    MUST(stats.limit_bytes >= stats.current_bytes || !(stats.valid & HS_F_LIMIT), "more is live than the limit allows");
    peak = stats.peak_bytes;
    sequence = stats.sequence;
    failures = stats.failures;
    (void)time_ns;
  }
}

enum { kThreads = 6 };
static pthread_barrier_t meeting;
static void* hold(void* bytes) {
  void* block = hide(malloc((size_t)(uintptr_t)bytes));
  pthread_barrier_wait(&meeting);
  pthread_barrier_wait(&meeting);
  free(block);
  return NULL;
}
static void threads(void) {
  pthread_t all[kThreads];
  uint64_t sum = 0;
  const uint64_t before = current();
  pthread_barrier_init(&meeting, NULL, kThreads + 1);
  for (uintptr_t i = 0; i < kThreads; ++i) {
    const uintptr_t bytes = (i + 1) * kMiB;
    sum += bytes;
    pthread_create(&all[i], NULL, hold, (void*)bytes);
  }
  pthread_barrier_wait(&meeting);
  const hs_stats_t fast = look(HS_FAST), exact = look(HS_EXACT);
  MUST(exact.current_bytes >= before + sum, "blocks of %d threads are not all counted", kThreads);
  const uint64_t off = fast.current_bytes > exact.current_bytes ? fast.current_bytes - exact.current_bytes
                                                                : exact.current_bytes - fast.current_bytes;
  MUST(off <= fast.error_bound_bytes, "the fast answer is off by %llu bytes, its bound is %llu",
       (unsigned long long)off, (unsigned long long)fast.error_bound_bytes);
  pthread_barrier_wait(&meeting);
  for (int i = 0; i < kThreads; ++i) pthread_join(all[i], NULL);
  MUST(current() < before + sum / 2, "blocks of ended threads are still counted");
}

static void null_argument(void) {
  MUST(hs_stats_get(NULL, HS_FAST) == HS_INVALID_PARAMETER, "NULL is not refused");
  hs_stats_t stats = HS_STATS_INIT;
  MUST(hs_stats_get(&stats, ~0u) == HS_INVALID_PARAMETER, "unknown flags are not refused");
  stats.size = 0;
  MUST(hs_stats_get(&stats, HS_FAST) == HS_INVALID_PARAMETER, "a structure of no size is not refused");
}

static void unknown_fields(void) {
  const hs_stats_t stats = look(HS_EXACT);
  MUST((stats.exact & ~stats.valid) == 0, "a field is exact and not answered");
  MUST(stats.valid & HS_F_COMMITTED || stats.committed_bytes == 0, "a field that is not answered has a value");
  MUST(stats.valid & HS_F_METADATA || stats.metadata_bytes == 0, "a field that is not answered has a value");
  MUST(!(stats.valid & HS_F_COMMITTED) || stats.committed_bytes > 0, "a field is answered with 0");
}

static void limits(void) {
  const uint64_t available = limit_to(16 * kMiB);
  const hs_stats_t before = look(HS_EXACT);
  errno = 0;
  MUST(hide(malloc((size_t)available + 65536)) == NULL && errno == ENOMEM, "the limit lets more pass");
  const hs_stats_t after = look(HS_EXACT);
  MUST(after.failures == before.failures + 1, "the refusal is not counted once");
  MUST(after.current_bytes == before.current_bytes, "a refused block is counted as live");
  MUST(hs_limit_set(1, 0) == HS_FAILURE, "a limit below what is live is not refused");
  void* block = hide(malloc(8 * kMiB));
  MUST(block, "half of what is available is not given");
  MUST(look(HS_FAST).available_bytes <= available - 8 * kMiB, "what is available does not fall");
  free(block);
  MUST(hs_limit_set(0, 0) == HS_OK, "the limit cannot be taken away");
  block = hide(malloc(32 * kMiB));
  MUST(block, "the limit is still there");
  free(block);
}

static void forks(void) {
  char* block = hide(malloc(4 * kMiB));
  const uint64_t before = current();
  const pid_t child = fork();
  if (child == 0) {
    const uint64_t inherited = current();
    if (inherited + 65536 < before || inherited > before + 65536) _exit(2);
    char* own = hide(malloc(4 * kMiB));
    if (current() < inherited + 4 * kMiB) _exit(3);
    free(own);
    free(block);
    _exit(current() < inherited ? 0 : 4);
  }
  int status = 0;
  waitpid(child, &status, 0);
  MUST(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child's figures do not fit what it did (%d)",
       WEXITSTATUS(status));
  MUST(current() <= before + 4096 && current() >= before, "the child's work shows in the parent");
  free(block);
}

static volatile sig_atomic_t answered;
static void on_signal(int number) {
  hs_stats_t stats = HS_STATS_INIT;
  (void)number;
  answered = hs_stats_get(&stats, HS_FAST) == HS_OK ? 1 : -1;
}
static void in_handlers(void) {
  look(HS_FAST);
  signal(SIGUSR1, on_signal);
  raise(SIGUSR1);
  MUST(answered == 1, "a signal handler gets no answer");
}

static const struct {
  const char* name;
  const char* promise;
  void (*run)(void);
} checks[] = {
    {"big-block", "99 % of what is available can be had in one block, or the largest block says how much can",
     big_block},
    {"big-pieces", "99 % of what is available can be had in small blocks", big_pieces},
    {"basic", "malloc gives blocks that hold what is written, and NULL with ENOMEM beyond the limit", basic},
    {"calloc", "calloc gives zeros, and refuses a product that overflows", zeroed},
    {"realloc", "realloc keeps what is in a block, also when it fails", resized},
    {"memalign", "aligned blocks are aligned and counted", aligned},
    {"posix-memalign", "posix_memalign refuses alignments that are none", posix_aligned},
    {"usable-size", "all usable bytes of a block are its own", usable},
    {"stress", "one thread within the budget always gets memory, and leaves nothing behind", stress_alone},
    {"stress-threads", "so do four threads", stress_together},
    {"boundaries", "blocks lie apart from each other, from the stack and from the program's mappings", boundaries},
    {"fragment-fixed", "a million blocks later, current is exactly what it was", fixed_fragments},
    {"fragment-random", "blocks of random parts of what is available can always be had, and current comes back",
     random_fragments},
    {"peak", "peak is the highest current, no more and no less", highest},
    {"monotone", "peak and counters never fall, current never passes peak or limit", monotone},
    {"threads", "blocks of all threads are counted, the fast answer is within its bound", threads},
    {"null", "NULL, unknown flags and a structure of no size are refused", null_argument},
    {"unknown", "what is not known is marked so, and is not 0", unknown_fields},
    {"limits", "a limit refuses what passes it, is counted, and goes", limits},
    {"fork", "a forked child counts for itself, from what it inherited", forks},
    {"signal", "the fast call answers in a signal handler", in_handlers},
};

int main(int count, char** words) {
  if (count != 2) return 2;
  for (size_t i = 0; i < sizeof checks / sizeof checks[0]; ++i) {
    if (strcmp(words[1], "--list") == 0) {
      printf("%s\t%s\n", checks[i].name, checks[i].promise);
    } else if (strcmp(words[1], checks[i].name) == 0) {
      checks[i].run();
      return 0;
    }
  }
  return strcmp(words[1], "--list") == 0 ? 0 : 2;
}
