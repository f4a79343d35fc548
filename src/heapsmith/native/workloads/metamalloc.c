// The four benchmarks that metamalloc publishes, written after their public description.
#include <stdatomic.h>
#include <string.h>

#include "workload.h"

// One thread, 37 sizes a thousand times; the first half freed first in first out, the second last in first
// out.
enum { local_sizes = 37, local_rounds = 1000, local_blocks = local_sizes * local_rounds };
static const uint16_t sizes_of_local[local_sizes] = {32, 16,   32,   16, 16, 16,  32,  64,  32,  12,   14, 8,  20,
                                                     22, 23,   27,   35, 96, 128, 100, 256, 512, 1024, 40, 50, 43,
                                                     74, 2048, 1500, 29, 7,  41,  77,  60,  80,  84,   106};
static void local(unsigned scale) {
  static char* blocks[local_blocks];
  for (unsigned pass = 0; pass < 300 * scale; pass++) {
    for (unsigned i = 0; i < local_blocks; i++) {
      const size_t bytes = sizes_of_local[i % local_sizes];
      blocks[i] = must(malloc(bytes));
      memset(blocks[i], (char)i, bytes < 8 ? bytes : 8);
    }
    for (unsigned i = 0; i < local_blocks / 2; i++) free(blocks[i]);
    for (unsigned i = local_blocks; i-- > local_blocks / 2;) free(blocks[i]);
  }
}

// A million objects of 32 bytes, walked again and again: how densely did they come?
enum { locality_objects = 1024000 };
static uint64_t (*objects[locality_objects])[4];
static void prepare_locality(unsigned scale) {
  (void)scale;
  for (unsigned i = 0; i < locality_objects; i++) objects[i] = must(malloc(32));
}
static void locality(unsigned scale) {
  volatile uint64_t sum = 0;
  for (unsigned pass = 0; pass < 100 * scale; pass++) {
    uint64_t of_pass = 0;
    for (unsigned i = 0; i < locality_objects; i++)
      for (unsigned field = 0; field < 4; field++) {
        (*objects[i])[field] = i + field;
        of_pass += (*objects[i])[field];
      }
    for (unsigned i = 0; i < locality_objects; i++)
      for (unsigned field = 0; field < 4; field++) of_pass += (*objects[i])[field];
    sum = sum + of_pass;
  }
}

// Each thread allocates blocks of eight sizes, writes and reads every byte, then frees those of another
// thread.
static const uint16_t sizes_of_threads[8] = {16, 32, 64, 128, 256, 512, 1024, 2048};
static const uint16_t counts_of_threads[8] = {4089, 2044, 1022, 511, 255, 127, 63, 31};
typedef struct {
  char* block;
  uint32_t bytes;
  _Atomic char ready;
} entry;
static entry* table;
static unsigned table_threads, table_blocks, table_rounds;

static void exchange(unsigned index) {
  entry* mine = table + (size_t)index * table_blocks;
  unsigned at = 0;
  for (unsigned round = 0; round < table_rounds; round++)
    for (unsigned size = 0; size < 8; size++)
      for (unsigned i = 0; i < counts_of_threads[size]; i++, at++) {
        const size_t bytes = sizes_of_threads[size];
        char* block = must(malloc(bytes));
        for (size_t byte = 0; byte < bytes; byte++) ((volatile char*)block)[byte] = (char)byte;
        for (size_t byte = 0; byte < bytes; byte++)
          if (((volatile char*)block)[byte] != (char)byte) abort();
        mine[at].block = block;
        mine[at].bytes = (uint32_t)bytes;
        atomic_store_explicit(&mine[at].ready, 1, memory_order_release);
      }
  entry* theirs = table + (size_t)(table_threads - 1 - index) * table_blocks;
  for (unsigned i = 0; i < table_blocks; i++) {
    while (!atomic_load_explicit(&theirs[i].ready, memory_order_acquire)) {
    }
    free(theirs[i].block);
  }
}
static void prepare_table(unsigned threads, unsigned rounds) {
  unsigned blocks = 0;
  for (unsigned size = 0; size < 8; size++) blocks += counts_of_threads[size];
  table_threads = threads;
  table_rounds = rounds;
  table_blocks = blocks * rounds;
  table = must(malloc((size_t)threads * table_blocks * sizeof *table));
  memset(table, 0, (size_t)threads * table_blocks * sizeof *table);
}
static void prepare_threads(unsigned scale) {
  (void)scale;
  prepare_table(4, 50);
}
static void prepare_memory(unsigned scale) {
  (void)scale;
  prepare_table(16, 25);
}
static void exchange_all(unsigned scale) {
  for (unsigned pass = 0; pass < scale; pass++) {
    for (size_t i = 0; i < (size_t)table_threads * table_blocks; i++) table[i].ready = 0;
    run_threads(table_threads, exchange);
  }
}

const workload metamalloc_workloads[] = {
    {"local", "one thread, 37 sizes from 7 to 2048 bytes, 37,000 blocks at a time", local, NULL},
    {"locality", "a walk over a million objects of 32 bytes", locality, prepare_locality},
    {"threads", "4 threads, each fills 407,100 blocks and frees another's", exchange_all, prepare_threads},
    {"memory", "16 threads, each fills 203,550 blocks and frees another's", exchange_all, prepare_memory},
    {0}};
