/* The memory that the driver shares with whoever started it: a head, the operations to carry out (written
 * before the start), what each of them answered, and every system call made inside them. It outlives a crash
 * of the driver. heapsmith/osmem/driver.py reads and writes the same bytes; a test compares the sizes.
 */
#ifndef OSMEM_DRIVER_H
#define OSMEM_DRIVER_H

#include <stdint.h>

enum { DRIVER_MAGIC = 0x6f736d31 };

enum driver_state {
  NOT_STARTED = 0,
  SYMBOL_MISSING = 1, /* `error` has a bit for each function that the library lacks */
  NO_FILTER = 2,      /* the kernel refuses a seccomp filter; `error` says why */
  RUNNING = 3,
  FINISHED = 4,
};

struct head {
  uint32_t magic;
  uint32_t state;
  uint32_t error;      /* what went wrong before the first operation: see `state` */
  uint32_t meta_bytes; /* size of the library's block header; 0: do not walk its heap */
  uint32_t operation_count;
  uint32_t system_call_room; /* how many records there is room for */
  uint32_t system_call_count;
  uint32_t dropped_count; /* system calls that found no room */
  uint32_t block_room;
  uint32_t block_count;
  uint64_t heap_start; /* the break before the first operation */
};

enum call { MALLOC = 0, CALLOC = 1, REALLOC = 2, FREE_CALL = 3 };

struct operation {
  uint32_t call;
  int32_t source; /* the operation whose result is the pointer argument; -1: NULL */
  uint64_t first, second;
};

enum phase { UNREACHED = 0, IN_CALL = 1, IN_PAYLOAD = 2, DONE = 3 };

enum finding {
  CALLOC_NOT_ZERO = 1,
  CONTENT_DAMAGED = 2,  /* somebody else wrote into this result before its time was over */
  CONTENT_NOT_KEPT = 4, /* realloc lost bytes */
  OLD_DISTURBED = 8,    /* realloc moved a heap block and wrote into the payload it left */
};

struct answer {
  uint64_t result;
  uint32_t phase;
  uint32_t findings;
  uint32_t kept_bytes;    /* how many bytes realloc had to keep and the driver compared */
  uint32_t kept_checksum; /* Adler-32 of those bytes as found */
};

struct system_call {
  uint32_t operation;
  uint32_t number;
  uint64_t arguments[6];
  int64_t result;
};

struct heap_block {
  uint64_t address, size;
  int64_t status;
};

#endif
