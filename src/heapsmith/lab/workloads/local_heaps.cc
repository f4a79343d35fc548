// local_heaps SOURCE: the workloads of local heaps on one source of memory; prints one JSON object per workload.
//
// Built with heapsmith's one header for C++ programs ("heap.h"), as a user would. Sources are types, so that each is
// compiled into its workloads; what a library serves (malloc, mimalloc) is called through it.
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory_resource>
#include <string>
#include <vector>

#include "heap.h"

namespace {

// Processor time: machines are shared, and there is one thread.
uint64_t now_ns() {
  timespec now;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1000000000u + static_cast<uint64_t>(now.tv_nsec);
}

void* must(void* block) {
  if (!block) {
    fputs("local_heaps: out of memory\n", stderr);
    _Exit(3);
  }
  return block;
}

// --- sources: begun and ended as a whole

struct Malloc {
  static bool open() { return true; }
  static constexpr bool ends_as_a_whole = false;
  void* allocate(size_t bytes) { return must(malloc(bytes)); }
  void deallocate(void* block, size_t) { free(block); }
};

struct Local {
  static bool open() { return true; }
  static constexpr bool ends_as_a_whole = true;
  heapsmith::LocalHeap heap;
  void* allocate(size_t bytes) { return heap.allocate(bytes); }
  void deallocate(void* block, size_t) { heap.deallocate(block); }
};

// The caller says what it asked for, as containers of the standard library do.
struct LocalSized : Local {
  void deallocate(void* block, size_t bytes) { heap.deallocate(block, bytes); }
};

struct Arena {
  static bool open() { return true; }
  static constexpr bool ends_as_a_whole = true;
  heapsmith::Arena arena;
  void* allocate(size_t bytes) { return arena.allocate(bytes); }
  void deallocate(void*, size_t) {}
  void end_pass() { arena.release(); }
};

struct Monotonic {
  static bool open() { return true; }
  static constexpr bool ends_as_a_whole = true;
  std::pmr::monotonic_buffer_resource resource;
  void* allocate(size_t bytes) { return resource.allocate(bytes); }
  void deallocate(void*, size_t) {}
  void end_pass() { resource.release(); }
};

struct UnsynchronizedPool {
  static bool open() { return true; }
  static constexpr bool ends_as_a_whole = true;
  std::pmr::unsynchronized_pool_resource resource;
  void* allocate(size_t bytes) { return resource.allocate(bytes); }
  void deallocate(void* block, size_t bytes) { resource.deallocate(block, bytes); }
};

struct Mimalloc {
  static inline void* (*make)();
  static inline void (*destroy)(void*);
  static inline void* (*take)(void*, size_t);
  static inline void (*give)(void*);
  static bool open() {
    void* library = dlopen(getenv("HEAPSMITH_BENCH_MIMALLOC"), RTLD_NOW | RTLD_LOCAL);
    if (!library) return false;
    make = reinterpret_cast<void* (*)()>(dlsym(library, "mi_heap_new"));
    destroy = reinterpret_cast<void (*)(void*)>(dlsym(library, "mi_heap_destroy"));
    take = reinterpret_cast<void* (*)(void*, size_t)>(dlsym(library, "mi_heap_malloc"));
    give = reinterpret_cast<void (*)(void*)>(dlsym(library, "mi_free"));
    return make && destroy && take && give;
  }
  static constexpr bool ends_as_a_whole = true;
  void* heap = must(make());
  ~Mimalloc() { destroy(heap); }
  void* allocate(size_t bytes) { return must(take(heap, bytes)); }
  void deallocate(void* block, size_t) { give(block); }
};

// Bare free lists: one for each class, over pages that are there already; no look at the address, no description of
// anything, and blocks lie in the order in which they were asked for.
struct Floor {
  static bool open() { return true; }
  static constexpr bool ends_as_a_whole = true;
  static constexpr size_t prepared_bytes = size_t{256} << 20;
  static inline char* prepared;
  using Classes = hs::SizeClasses<hs::SpecSizes>;
  void* lists[Classes::index_count] = {};
  char* at;
  Floor() {
    if (!prepared) {
      void* start =
          mmap(nullptr, prepared_bytes + (2 << 20), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      prepared = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(must(start)) + (2 << 20) - 1) &
                                         ~uintptr_t{(2 << 20) - 1});
      madvise(prepared, prepared_bytes, MADV_HUGEPAGE);
      for (size_t i = 0; i < prepared_bytes / 8; i += 4096) prepared[i] = 1;
    }
    at = prepared;
  }
  void* allocate(size_t bytes) {
    const unsigned index = Classes::class_of(bytes);
    void* block = lists[index];
    if (__builtin_expect(block != nullptr, 1)) {
      lists[index] = *static_cast<void**>(block);
      return block;
    }
    block = at;
    at += Classes::bytes_of(index);
    if (at > prepared + prepared_bytes) must(nullptr);
    return block;
  }
  void deallocate(void* block, size_t bytes) {
    const unsigned index = Classes::class_of(bytes);
    *static_cast<void**>(block) = lists[index];
    lists[index] = block;
  }
};

// --- workloads

struct Timed {
  uint64_t first_ns;
  uint64_t warm_ns;  // the median of all further passes
};

template <class Pass>
Timed time_passes(unsigned count, Pass pass) {
  std::vector<uint64_t> later;
  const uint64_t first = pass();
  for (unsigned i = 1; i < count; i++) later.push_back(pass());
  std::nth_element(later.begin(), later.begin() + static_cast<long>(later.size() / 2), later.end());
  return {first, later[later.size() / 2]};
}

constexpr uint16_t local_sizes[37] = {32, 16,   32,   16, 16, 16,  32,  64,  32,  12,   14, 8,  20,
                                      22, 23,   27,   35, 96, 128, 100, 256, 512, 1024, 40, 50, 43,
                                      74, 2048, 1500, 29, 7,  41,  77,  60,  80,  84,   106};
constexpr unsigned local_blocks = 37 * 1000;

// One heap, pass after pass: 37 sizes a thousand times; half freed first in first out, half last in first out.
template <class Source>
Timed local() {
  static char* blocks[local_blocks];
  memset(blocks, 0, sizeof blocks);
  Source source;
  return time_passes(60, [&] {
    const uint64_t start = now_ns();
    for (unsigned i = 0; i < local_blocks; i++) blocks[i] = static_cast<char*>(source.allocate(local_sizes[i % 37]));
    const uint64_t allocated = now_ns();
    for (unsigned i = 0; i < local_blocks; i++) memset(blocks[i], static_cast<char>(i), 7);
    const uint64_t touched = now_ns();
    for (unsigned i = 0; i < local_blocks / 2; i++) source.deallocate(blocks[i], local_sizes[i % 37]);
    for (unsigned i = local_blocks; i-- > local_blocks / 2;) source.deallocate(blocks[i], local_sizes[i % 37]);
    if constexpr (requires { source.end_pass(); }) source.end_pass();
    return allocated - start + (now_ns() - touched);
  });
}

// A heap for each request: two hundred to two thousand blocks of 16 to 1000 bytes, every third freed early, the rest at
// the request's end, as a whole where the source can.
template <class Source>
Timed requests() {
  static void* blocks[2000];
  static uint32_t sizes[2000];
  uint64_t random = 88172645463325252u;
  const auto draw = [&](uint64_t below) {
    random ^= random << 13;
    random ^= random >> 7;
    random ^= random << 17;
    return random % below;
  };
  return time_passes(40, [&] {
    const uint64_t start = now_ns();
    for (unsigned request = 0; request < 50; request++) {
      Source source;
      const unsigned count = 200 + static_cast<unsigned>(draw(1800));
      for (unsigned i = 0; i < count; i++) {
        const uint64_t drawn = draw(16 * 60);
        sizes[i] = static_cast<uint32_t>(16 + (drawn % 16 == 0 ? drawn : drawn % 120));
        blocks[i] = source.allocate(sizes[i]);
        *static_cast<unsigned*>(blocks[i]) = i;
        if (i % 3 == 2) {
          source.deallocate(blocks[i - 1], sizes[i - 1]);
          blocks[i - 1] = nullptr;
        }
      }
      if constexpr (!Source::ends_as_a_whole) {
        for (unsigned i = 0; i < count; i++)
          if (blocks[i]) source.deallocate(blocks[i], sizes[i]);
      }
    }
    return now_ns() - start;
  });
}

// One data structure: a search tree of 50,000 nodes with texts of 10 to 90 bytes, built, a quarter taken out, walked,
// and ended as a whole where the source can.
struct Node {
  Node* left;
  Node* right;
  char* text;
  uint32_t key;
  uint32_t text_bytes;
};
template <class Source>
void end(Source& source, Node* node) {
  if (!node) return;
  end(source, node->left);
  end(source, node->right);
  if (node->text) source.deallocate(node->text, node->text_bytes);
  source.deallocate(node, sizeof(Node));
}
uint64_t walk(const Node* node) { return node ? node->key + walk(node->left) + walk(node->right) : 0; }
template <class Source>
Timed structure() {
  static Node* nodes[50000];
  return time_passes(12, [&] {
    const uint64_t start = now_ns();
    Source source;
    Node* root = nullptr;
    uint32_t key = 12345;
    unsigned count = 0;
    for (unsigned i = 0; i < 50000; i++) {
      key = key * 1664525u + 1013904223u;
      Node** link = &root;
      while (*link) link = key < (*link)->key ? &(*link)->left : &(*link)->right;
      const uint32_t text_bytes = 10 + key % 81;
      *link = static_cast<Node*>(source.allocate(sizeof(Node)));
      **link = {nullptr, nullptr, static_cast<char*>(source.allocate(text_bytes)), key, text_bytes};
      (*link)->text[0] = 'x';
      nodes[count++] = *link;
    }
    for (unsigned i = 0; i < count; i += 4) {
      source.deallocate(nodes[i]->text, nodes[i]->text_bytes);
      nodes[i]->text = nullptr;
    }
    if (walk(root) == 0) must(nullptr);
    if constexpr (!Source::ends_as_a_whole) end(source, root);
    return now_ns() - start;
  });
}

// In bytes, of one line of /proc/self/status.
long long status_bytes(const char* key) {
  char line[256];
  long long found = 0;
  FILE* file = fopen("/proc/self/status", "r");
  while (file && fgets(line, sizeof line, file))
    if (strncmp(line, key, strlen(key)) == 0) found = strtoll(line + strlen(key) + 1, nullptr, 10) * 1024;
  if (file) fclose(file);
  return found;
}
long page_faults() {
  rusage used;
  getrusage(RUSAGE_SELF, &used);
  return used.ru_minflt;
}

template <class Source>
int measure(const std::string& workload) {
  if (!Source::open()) {
    fputs("local_heaps: the library of this source cannot be loaded\n", stderr);
    return 4;
  }
  const long faults_before = page_faults();
  const Timed timed = workload == "local"      ? local<Source>()
                      : workload == "requests" ? requests<Source>()
                                               : structure<Source>();
  const long faults = page_faults() - faults_before;
  printf(
      "{\"time_s\": %.9f, \"first_s\": %.9f, \"page_faults\": %ld, \"resident_bytes_peak\": %lld, "
      "\"resident_after_bytes\": %lld}\n",
      static_cast<double>(timed.warm_ns) / 1e9, static_cast<double>(timed.first_ns) / 1e9, faults,
      status_bytes("VmHWM:"), status_bytes("VmRSS:"));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::map<std::string, int (*)(const std::string&)> sources = {
      {"malloc", measure<Malloc>},
      {"heapsmith LocalHeap", measure<Local>},
      {"heapsmith LocalHeap, sized", measure<LocalSized>},
      {"heapsmith Arena", measure<Arena>},
      {"pmr monotonic", measure<Monotonic>},
      {"pmr unsynchronized pool", measure<UnsynchronizedPool>},
      {"mimalloc heap", measure<Mimalloc>},
      {"floor", measure<Floor>},
  };
  const auto found = argc == 3 ? sources.find(argv[1]) : sources.end();
  if (found == sources.end()) {
    fputs("usage: local_heaps SOURCE local|requests|structure\n", stderr);
    return 2;
  }
  return found->second(argv[2]);
}
