/* Heap Tracker's names, counted right: how many bytes a program has asked for and not yet given back.
 *
 * Two ways in: preload libheapsmith_track.so (`heapsmith track -- COMMAND`), and nothing of the program
 * changes; or, where nothing can be preloaded, compile heap_track.c in and link with what `heapsmith track
 * flags` prints. Either way malloc, calloc, realloc, reallocarray, aligned_alloc, memalign, posix_memalign,
 * valloc, pvalloc and free are seen, and with them strdup and the rest.
 */
#ifndef HEAPSMITH_HEAP_TRACKER_LIB_H
#define HEAPSMITH_HEAP_TRACKER_LIB_H

#include <stddef.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Above this (strictly) the log lines warn. Set it whenever you like; 250 KiB at first, or
 * HEAP_TRACK_THRESHOLD bytes. */
extern size_t heap_threshold;
/* Requested bytes of live blocks; never negative. Read it from any thread. */
extern volatile ssize_t heap_allocated;

/* Reads the environment; called by itself before main, and may be called again. */
void heap_track_init(void);

/* free and realloc under the names of Heap Tracker. The sizes are not needed: what is wrong in them does no
 * harm. */
void _free(void* block, size_t bytes);
void* _realloc(void* block, size_t old_bytes, size_t new_bytes);

/* What is logged, and where to: at first by HEAP_TRACK_LOG (none, warnings, all) and HEAP_TRACK_FILE (a path
 * or a descriptor's number; standard error if unset). Linked in and without HEAP_TRACK_LOG: warnings; compiled with
 * -DDEBUG_LOGS_ON=1 all, with 0 none. A null sink is the file again. Sinks may allocate. */
enum { HEAP_TRACK_NONE = 0, HEAP_TRACK_WARNINGS = 1, HEAP_TRACK_ALL = 2 };
extern int heap_track_level;
typedef void (*heap_track_sink)(const char* line, void* argument);
void heap_track_set_sink(heap_track_sink sink, void* argument);

/* The highest heap_allocated so far, live blocks, and what could not be followed for want of memory. */
size_t heap_track_peak(void);
size_t heap_track_blocks(void);
size_t heap_track_lost(void);

#ifdef __cplusplus
}
#endif

#endif
