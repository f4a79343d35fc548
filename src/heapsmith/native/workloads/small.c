// Small objects in one thread: the loops in which the price of malloc and free themselves shows.
#include <string.h>

#include "workload.h"

static volatile char sink;

static void pairs_of(size_t bytes, unsigned long count) {
  for (unsigned long i = 0; i < count; i++) {
    char* block = must(malloc(bytes));
    *(volatile char*)block = (char)i;
    free(block);
  }
}
static void pair_64(unsigned scale) { pairs_of(64, 60000000ul * scale); }
static void pair_8k(unsigned scale) { pairs_of(8192, 40000000ul * scale); }
static void pair_40k(unsigned scale) { pairs_of(40000, 20000000ul * scale); }

// A loop over small objects of mixed sizes: some die at once, some live for a while.
enum { ring_slots = 1024 };
static void loop(unsigned scale) {
  static char* ring[ring_slots];
  uint64_t state = 0x9E3779B97F4A7C15ull;
  for (unsigned long i = 0; i < 12000000ul * scale; i++) {
    const uint64_t random = next_random(&state);
    const unsigned slot = random % ring_slots;
    const size_t bytes = 8 + (random >> 20) % (random & (1 << 18) ? 64 : 512);
    free(ring[slot]);
    ring[slot] = must(malloc(bytes));
    ring[slot][0] = (char)i;
    char* brief = must(malloc(bytes / 2 + 16));
    brief[0] = ring[slot][0];
    sink = brief[0];
    free(brief);
  }
  for (unsigned slot = 0; slot < ring_slots; slot++) free(ring[slot]);
  memset(ring, 0, sizeof ring);
}

// Batches of a thousand equal blocks, freed in the opposite order.
static void batches(unsigned scale) {
  static void* blocks[1000];
  for (unsigned round = 0; round < 30000 * scale; round++) {
    for (unsigned i = 0; i < 1000; i++) *(volatile char*)(blocks[i] = must(malloc(64))) = 1;
    for (unsigned i = 1000; i-- > 0;) free(blocks[i]);
  }
}

// Fifty thousand live blocks of 8 to 1031 bytes, mostly small; a random one is replaced each time.
enum { churn_slots = 50000 };
static char* churned[churn_slots];
static void churn(unsigned scale) {
  uint64_t state = 42;
  for (unsigned long i = 0; i < 8000000ul * scale; i++) {
    const uint64_t random = next_random(&state);
    const unsigned slot = random % churn_slots;
    const uint64_t a = (random >> 20) & 1023, b = (random >> 32) & 1023;
    const size_t bytes = 8 + (a * b >> 10);
    free(churned[slot]);
    churned[slot] = must(malloc(bytes));
    churned[slot][0] = (char)i;
  }
  for (unsigned slot = 0; slot < churn_slots; slot++) free(churned[slot]);
  memset(churned, 0, sizeof churned);
}

// From empty to 400,000 blocks of 64 bytes and back.
static void fill(unsigned scale) {
  enum { count = 400000 };
  void** blocks = must(malloc(count * sizeof *blocks));
  for (unsigned round = 0; round < 15 * scale; round++) {
    for (unsigned i = 0; i < count; i++) *(volatile char*)(blocks[i] = must(malloc(64))) = 1;
    for (unsigned i = 0; i < count; i++) free(blocks[i]);
  }
  free(blocks);
}

// Binary trees of small nodes, built and torn down in recursion.
typedef struct node {
  struct node *left, *right;
  long payload[2];
} node;
static node* grow(int depth) {
  node* n = must(malloc(sizeof *n));
  n->payload[0] = depth;
  n->left = depth > 0 ? grow(depth - 1) : NULL;
  n->right = depth > 0 ? grow(depth - 1) : NULL;
  return n;
}
static void fell(node* n) {
  if (!n) return;
  fell(n->left);
  fell(n->right);
  free(n);
}
static void trees(unsigned scale) {
  node* lasting = grow(17);
  for (unsigned round = 0; round < 60 * scale; round++) fell(grow(14));
  fell(lasting);
}

const workload small_workloads[] = {
    {"pair-64", "one block of 64 bytes, allocated and freed", pair_64, NULL},
    {"pair-8k", "one block of 8 KiB, allocated and freed", pair_8k, NULL},
    {"pair-40k", "one block of 40,000 bytes, allocated and freed", pair_40k, NULL},
    {"loop", "small objects of mixed sizes in one thread, some brief, some kept for a while", loop, NULL},
    {"batches", "a thousand blocks of 64 bytes, freed in the opposite order", batches, NULL},
    {"churn", "50,000 live blocks of 8 to 1031 bytes, random ones replaced", churn, NULL},
    {"fill", "400,000 blocks of 64 bytes, from empty and back", fill, NULL},
    {"trees", "binary trees of small nodes", trees, NULL},
    {0}};
