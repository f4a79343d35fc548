/* heapsmith.h: the heap of this process, told and limited: one call for every allocator.
 *
 *   hs_stats_t stats = HS_STATS_INIT;
 *   if (hs_stats_get(&stats, HS_FAST) == HS_OK) printf("%" PRIu64 " live bytes\n", stats.current_bytes);
 *
 * Three ways to have these functions:
 *   - the program runs under `heapsmith run`: they are there, and everything is counted;
 *   - link with -lheapsmith: as above where heapsmith watches, else what the allocator and the kernel tell;
 *   - compile heapsmith_client.c in: the same names, and HS_UNSUPPORTED wherever heapsmith is not loaded.
 *
 * Plain C99 and C++. Every call answers an HS_ result; the numbers are those of oe_result_t.
 */
#ifndef HEAPSMITH_H
#define HEAPSMITH_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(HEAPSMITH_CLIENT)
#define HS_API __attribute__((visibility("hidden")))
#else
#define HS_API __attribute__((visibility("default")))
#endif

enum {
  HS_OK = 0,
  HS_FAILURE = 1,
  HS_INVALID_PARAMETER = 3,
  HS_OUT_OF_MEMORY = 5,
  HS_UNEXPECTED = 7,
  HS_UNSUPPORTED = 16
};

#define HS_STATS_VERSION 1u

/* One bit per field of hs_stats_t, for `valid` and `exact`. */
#define HS_F_LIMIT (1ull << 0)
#define HS_F_CURRENT (1ull << 1)
#define HS_F_PEAK (1ull << 2)
#define HS_F_AVAILABLE (1ull << 3)
#define HS_F_LARGEST_BLOCK (1ull << 4)
#define HS_F_SOFT_LIMIT (1ull << 5)
#define HS_F_RESIDENT (1ull << 6)
#define HS_F_COMMITTED (1ull << 7)
#define HS_F_RESERVED (1ull << 8)
#define HS_F_METADATA (1ull << 9)
#define HS_F_FREE_CACHED (1ull << 10)
#define HS_F_MAPPED (1ull << 11)
#define HS_F_PYTHON_ARENAS (1ull << 12)
#define HS_F_PYTHON (1ull << 13)
#define HS_F_POOLS (1ull << 14)
#define HS_F_BLOCKS (1ull << 15)
#define HS_F_ALLOCATIONS (1ull << 16)
#define HS_F_FREES (1ull << 17)
#define HS_F_ALLOCATED (1ull << 18)
#define HS_F_FREED (1ull << 19)
#define HS_F_FAILURES (1ull << 20)
#define HS_F_LAST_FAILED (1ull << 21)
#define HS_F_THREADS (1ull << 22)
#define HS_F_ALLOCATOR_CURRENT (1ull << 23)

/* limit_source */
enum {
  HS_SOURCE_NONE = 0,
  HS_SOURCE_CAP = 1,
  HS_SOURCE_REGION = 2,
  HS_SOURCE_RLIMIT_DATA = 3,
  HS_SOURCE_RLIMIT_AS = 4,
  HS_SOURCE_CGROUP2 = 5,
  HS_SOURCE_CGROUP1 = 6,
  HS_SOURCE_PHYSICAL = 7,
  HS_SOURCE_ALLOCATOR = 8
};

/* limit_effect: what an allocation meets there */
enum { HS_EFFECT_NONE = 0, HS_EFFECT_NULL = 1, HS_EFFECT_KILL = 2, HS_EFFECT_THROTTLE = 3 };

/* count_unit: what current_bytes and peak_bytes count */
enum {
  HS_UNIT_UNKNOWN = 0,
  HS_UNIT_USABLE = 1,    /* what malloc_usable_size answers */
  HS_UNIT_REQUESTED = 2, /* what was asked for */
  HS_UNIT_CHUNK = 3,     /* with the allocator's own words around each block */
  HS_UNIT_PAGE = 4       /* whole pages or chunks of pages */
};

/* Who answers. */
enum { HS_MODE_NONE = 0, HS_MODE_WATCHED = 1, HS_MODE_FORGED = 2, HS_MODE_ASKED = 3 };

typedef struct hs_stats {
  uint32_t size;    /* sizeof(hs_stats_t), set by the caller: an older caller gets the fields that it knows */
  uint32_t version; /* HS_STATS_VERSION, set by the call */
  uint64_t valid;   /* HS_F_ bits of the fields that are answered; the others are 0 and mean nothing */
  uint64_t exact;   /* of those, the exact ones; the others are estimates or within error_bound_bytes */
  uint64_t time_ns; /* CLOCK_MONOTONIC (coarse for HS_FAST) */
  uint64_t sequence;

  uint64_t limit_bytes;   /* the most that this heap can hold by the tightest hard bound */
  uint64_t current_bytes; /* allocated and not yet freed */
  uint64_t peak_bytes;    /* the highest current_bytes of this process */

  uint64_t available_bytes;     /* how much more the tightest bound allows now */
  uint64_t largest_block_bytes; /* the largest single request that is expected to succeed now */
  uint64_t soft_limit_bytes;    /* the lower of the warning threshold and memory.high */
  uint64_t resident_bytes;      /* of the whole process, as the kernel says */
  uint64_t committed_bytes;     /* taken by the allocator from the system */
  uint64_t reserved_bytes;      /* address space of the allocator */
  uint64_t metadata_bytes;      /* for the allocator itself */
  uint64_t free_cached_bytes;   /* committed and free */
  uint64_t mapped_bytes;        /* anonymous memory that the program mapped itself */
  uint64_t python_arena_bytes;  /* mapped for CPython's small objects */
  uint64_t python_bytes;        /* of current_bytes: CPython's own objects */
  uint64_t pool_bytes;          /* live in registered pools, beyond current_bytes */
  uint64_t live_blocks;
  uint64_t allocations; /* a reallocation is a free and an allocation */
  uint64_t frees;
  uint64_t allocated_bytes; /* of all allocations so far */
  uint64_t freed_bytes;
  uint64_t failures; /* allocations that gave NULL */
  uint64_t last_failed_bytes;
  uint64_t threads;                 /* that have allocated and are alive */
  uint64_t allocator_current_bytes; /* what the allocator itself believes to be allocated, in its own unit */

  uint32_t limit_source;   /* HS_SOURCE_ */
  uint32_t limit_effect;   /* HS_EFFECT_ */
  uint32_t count_unit;     /* HS_UNIT_ */
  uint32_t allocator_unit; /* HS_UNIT_ of allocator_current_bytes */
  uint32_t mode;           /* HS_MODE_ */
  uint32_t reserved_word;
  uint64_t error_bound_bytes; /* the largest |current_bytes - true value| */
  uint64_t peak_error_bound_bytes;
  char allocator[32]; /* "glibc", "jemalloc", ... or the file name of the object that answers malloc */
} hs_stats_t;

/* An empty hs_stats_t with its size set. */
static inline hs_stats_t hs_stats_init(void) {
  hs_stats_t stats;
  __builtin_memset(&stats, 0, sizeof stats);
  stats.size = (uint32_t)sizeof stats;
  return stats;
}
#define HS_STATS_INIT hs_stats_init()

/* O(1): no lock, no system call, safe in a signal handler; what would need more is not valid. */
#define HS_FAST 0u
/* Sums all threads, asks the allocator and the kernel; may take locks and a millisecond. Refreshes the bounds
 * that HS_FAST answers from then on. */
#define HS_EXACT 1u
/* With HS_EXACT: limit_bytes is the bound itself, with nothing subtracted. */
#define HS_RAW_LIMIT 2u

HS_API int hs_stats_get(hs_stats_t* stats, unsigned flags);

/* A peak of its own for a piece of the program: scopes nest, overlap and belong to the process, not to a
 * thread. The peak of the process goes on. HS_OUT_OF_MEMORY when all 64 scopes are in use. */
typedef struct hs_peak {
  uint32_t scope;
  uint32_t generation;
} hs_peak_t;
HS_API int hs_peak_reset(hs_peak_t* scope);
HS_API int hs_peak_read(const hs_peak_t* scope, uint64_t* peak_bytes, uint64_t* error_bound_bytes);
HS_API int hs_peak_end(const hs_peak_t* scope, uint64_t* peak_bytes, uint64_t* error_bound_bytes);

/* The hard limit on live bytes, the same that `heapsmith info PID --set limit=` sets; 0 takes it away. Below
 * what is live it is refused with HS_FAILURE, unless forced: then the next allocation meets it. */
#define HS_LIMIT_FORCE 1u
HS_API int hs_limit_set(uint64_t limit_bytes, unsigned flags);

/* A threshold on live bytes. Crossing it upward is one crossing; the next one counts after live bytes have
 * fallen below threshold - hysteresis. The callback runs on a thread of heapsmith's own, never inside malloc,
 * and may allocate. With a null callback, wait for crossings in a thread of yours. A forked child has no
 * watches. */
typedef struct hs_crossing {
  uint32_t watch;
  uint32_t count; /* crossings since the last delivery */
  uint64_t threshold_bytes;
  uint64_t current_bytes; /* at the last of them */
  uint64_t time_ns;       /* CLOCK_MONOTONIC of it */
} hs_crossing_t;
typedef void (*hs_crossing_fn)(const hs_crossing_t* crossing, void* argument);
HS_API int hs_watch(uint64_t threshold_bytes, uint64_t hysteresis_bytes, hs_crossing_fn callback, void* argument,
                    uint32_t* watch);
/* HS_OK and a crossing; HS_FAILURE when the time is over; HS_INVALID_PARAMETER when there is no such watch
 * (any more). */
HS_API int hs_watch_wait(uint32_t watch, uint64_t timeout_ns, hs_crossing_t* crossing);
HS_API int hs_watch_end(uint32_t watch);

/* Called in the thread whose allocation has just failed, after malloc has let go of everything and before it
 * answers NULL; failures inside the callback are not told. `refused` is 1 when the limit said no, 0 when the
 * allocator did. A null callback takes it away. */
typedef void (*hs_failure_fn)(size_t requested_bytes, int refused, void* argument);
HS_API int hs_on_failure(hs_failure_fn callback, void* argument);

/* The allocator gives its free pages back to the system, those of the calling thread's cache first: what a heap with
 * deferred recycling waits for. HS_OK when something went back, as far as the allocator tells; HS_FAILURE when there was
 * nothing; HS_UNSUPPORTED when it cannot be asked. May take milliseconds. */
HS_API int hs_recycle(void);

/* A private pool (an arena, a device, an enclave) joins the report: push with hs_pool_set, or give a function
 * that is asked by HS_EXACT. HS_POOL_IN_HEAP: its memory comes from malloc and is in current_bytes already.
 */
#define HS_POOL_IN_HEAP 1u
typedef uint64_t (*hs_pool_fn)(void* argument);
HS_API int hs_pool_register(const char* name, unsigned flags, hs_pool_fn live_bytes, void* argument, uint32_t* pool);
HS_API int hs_pool_set(uint32_t pool, uint64_t live_bytes);
HS_API int hs_pool_end(uint32_t pool);

#ifdef __cplusplus
}
#endif

#endif
