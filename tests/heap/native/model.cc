// A heap against a model of it: random calls, an operating system that fails now and then, several threads.
//
//   model SEED OPERATIONS THREADS FAIL_ONE_IN     exit code 0: every promise held
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <map>
#include <vector>

#include "heap/heap.h"
#include "policy/cache/bounded_cache.h"
#include "policy/pages/huge_pages.h"
#include "policy/pages/limit.h"
#include "policy/pages/os_pages.h"
#include "policy/pages/purge_after.h"
#include "policy/remote/remote_batch.h"
#include "policy/remote/remote_stack.h"
#include "policy/sizes/geometric.h"

namespace {

unsigned fail_one_in = 0;
unsigned long failures = 0;

// Linux, but any call that can fail does so now and then.
struct FailingLinux : hs::Linux {
  static bool fails() {
    static unsigned long calls = 0;
    const unsigned long call = __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED);
    if (fail_one_in == 0 || hs::mixed(call) % fail_one_in != 0) return false;
    __atomic_add_fetch(&failures, 1, __ATOMIC_RELAXED);
    return true;
  }
  static void* map(size_t bytes) { return fails() ? nullptr : Linux::map(bytes); }
  static bool unmap(void* start, size_t bytes) { return !fails() && Linux::unmap(start, bytes); }
  static bool purge(void* start, size_t bytes) { return !fails() && Linux::purge(start, bytes); }
  static bool advise_huge_pages(void* start, size_t bytes) {
    return !fails() && Linux::advise_huge_pages(start, bytes);
  }
  static bool move(void* from, size_t bytes, void* to) { return !fails() && Linux::move(from, bytes, to); }
};

using Classes = hs::Geometric<16, 65536, 4>;
using PagePolicy = hs::Pipe<hs::OsPages<FailingLinux>, hs::HugePages<1 << 20, false, FailingLinux>,
                            hs::Limit<256 << 20>, hs::PurgeAfter<1, 65536, 4>>;
template <class Remote>
using Tested = hs::Heap<Classes, hs::BoundedCache<65536, 2048, 32>, Remote, PagePolicy, hs::FutexLock, hs::PlainLinks,
                        FailingLinux>;

[[noreturn]] void broken(const char* what, unsigned long long number) {
  fprintf(stderr, "broken: %s (%llu)\n", what, number);
  exit(1);
}

struct Block {
  size_t bytes;
  unsigned char tag;
};

uint64_t next_random(uint64_t& state) { return state = hs::mixed(state + 0x9E3779B97F4A7C15u); }

template <class Heap>
struct Worker {
  uint64_t state;
  unsigned long operations;
  unsigned long refused = 0;
  std::map<uintptr_t, Block> live;

  void fill(uintptr_t at, const Block& block) { memset(hs::pointer_to(at), block.tag, block.bytes); }
  void look(uintptr_t at, const Block& block, size_t bytes) {
    const auto* byte = hs::pointer_to<unsigned char>(at);
    for (size_t i = 0; i < bytes; i += i + 1 < bytes && i > 200 ? 61 : 1)
      if (byte[i] != block.tag) broken("contents", i);
  }
  void add(void* made, size_t bytes, size_t alignment) {
    if (!made) {
      refused++;
      return;
    }
    const uintptr_t at = hs::address_of(made);
    if (at % alignment != 0) broken("alignment", alignment);
    if (Heap::usable_bytes(made) < bytes) broken("usable size", bytes);
    const auto after = live.lower_bound(at);
    if (after != live.end() && after->first < at + bytes) broken("overlap with the block after", bytes);
    if (after != live.begin()) {
      const auto before = std::prev(after);
      if (before->first + before->second.bytes > at) broken("overlap with the block before", bytes);
    }
    const Block block{bytes, static_cast<unsigned char>(next_random(state) | 1)};
    fill(at, block);
    live[at] = block;
  }
  std::map<uintptr_t, Block>::iterator pick() {
    auto found =
        live.lower_bound(live.begin()->first + next_random(state) % (live.rbegin()->first - live.begin()->first + 1));
    return found == live.end() ? live.begin() : found;
  }
  size_t any_size() {
    const uint64_t random = next_random(state);
    return (random >> 8) % (random % 32 == 0 ? 3000000 : random % 8 == 0 ? 80000 : 700);
  }
  void step() {
    const uint64_t choice = next_random(state) % 16;
    if (live.empty() || (choice < 7 && live.size() < 400)) {
      const size_t bytes = any_size();
      if (choice == 0) {
        void* made = Heap::allocate_zeroed(bytes);
        for (size_t i = 0; made && i < bytes; i++)
          if (static_cast<unsigned char*>(made)[i] != 0) broken("zeroed", i);
        add(made, bytes, 16);
      } else if (choice == 1) {
        const size_t alignment = size_t{16} << next_random(state) % 10;
        add(Heap::allocate_aligned(alignment, bytes), bytes, alignment);
      } else {
        add(Heap::allocate(bytes), bytes, 16);
      }
    } else if (choice < 9) {
      const auto chosen = pick();
      const uintptr_t at = chosen->first;
      const Block block = chosen->second;
      const size_t bytes = any_size() + 1;
      look(at, block, block.bytes);
      void* moved = Heap::reallocate(hs::pointer_to(at), bytes);
      if (!moved) {
        refused++;
        look(at, block, block.bytes);
      } else {
        live.erase(chosen);
        look(hs::address_of(moved), block, hs::smaller_of(bytes, block.bytes));
        add(moved, bytes, 16);
      }
    } else if (choice == 9 && next_random(state) % 64 == 0) {
      Heap::recycle();
    } else {
      const auto chosen = pick();
      look(chosen->first, chosen->second, chosen->second.bytes);
      Heap::deallocate(hs::pointer_to(chosen->first));
      live.erase(chosen);
    }
  }
  void run() {
    for (unsigned long i = 0; i < operations; i++) step();
    for (const auto& [at, block] : live) {
      look(at, block, block.bytes);
      Heap::deallocate(hs::pointer_to(at));
    }
    live.clear();
    Heap::thread_exit();
  }
};

// Free runs: no two neighbours of one kind, none lost, none counted twice.
template <class Heap>
void check_structure() {
  uintptr_t end = 0;
  hs::SpanState before = hs::SpanState::retired;
  size_t dirty_bytes = 0, used_bytes = 0, all_bytes = 0;
  Heap::PageHeapType::visit_spans([&](const hs::Span& span) {
    const bool is_free = span.state == hs::SpanState::dirty || span.state == hs::SpanState::clean;
    if (is_free && span.start == end && span.state == before)
      broken("free neighbours that were not joined", span.start);
    if (span.start < end) broken("spans overlap", span.start);
    if (span.state == hs::SpanState::dirty) dirty_bytes += span.bytes();
    if (span.state == hs::SpanState::blocks || span.state == hs::SpanState::large) used_bytes += span.bytes();
    all_bytes += span.bytes();
    end = span.end();
    before = span.state;
  });
  if (dirty_bytes != Heap::PageHeapType::dirty_bytes()) broken("dirty bytes", dirty_bytes);
  if (used_bytes != Heap::PageHeapType::live_bytes()) broken("bytes of spans in use", used_bytes);
  if (all_bytes != Heap::PageHeapType::reserved_bytes()) broken("reserved bytes", all_bytes);
  if (Heap::PageHeapType::pages().below.committed_bytes != dirty_bytes + used_bytes)
    broken("bytes counted against the limit", Heap::PageHeapType::pages().below.committed_bytes);
}

// What is freed once and for all leaves few batches waiting; what is allocated again and again is waited for by more.
template <class Heap>
void check_waiting() {
  constexpr size_t passes = 12;
  constexpr size_t blocks_of_pass = 1500;
  constexpr size_t few_bytes = 2 * 2048;
  static void* blocks[blocks_of_pass];
  size_t most_bytes = 0;
  for (size_t pass = 0; pass < passes; pass++) {
    for (void*& block : blocks)
      if (!(block = Heap::allocate(64))) broken("refused in pass", pass);
    for (void* block : blocks) Heap::deallocate(block);
    const size_t waiting_bytes = Heap::CentralType::waiting_bytes();
    if (pass == 0 && waiting_bytes > few_bytes) broken("waiting after one pass", waiting_bytes);
    most_bytes = hs::larger_of(most_bytes, waiting_bytes);
  }
  const size_t expected_bytes = Heap::Remote::transfer_batches > 4 ? 4 * few_bytes : 0;
  if (most_bytes < expected_bytes) broken("waiting after many passes", most_bytes);
}

template <class Heap>
int run(uint64_t seed, unsigned long operations, unsigned threads, unsigned failing) {
  check_waiting<Heap>();
  fail_one_in = failing;
  std::vector<Worker<Heap>> workers(threads);
  std::vector<pthread_t> ids(threads);
  for (unsigned i = 0; i < threads; i++) {
    workers[i].state = seed * 1000 + i;
    workers[i].operations = operations;
    pthread_create(
        &ids[i], nullptr,
        [](void* worker) -> void* {
          static_cast<Worker<Heap>*>(worker)->run();
          return nullptr;
        },
        &workers[i]);
  }
  unsigned long refused = 0;
  for (unsigned i = 0; i < threads; i++) {
    pthread_join(ids[i], nullptr);
    refused += workers[i].refused;
  }
  const auto out = Heap::count_out_blocks();
  for (const uint64_t blocks : out.blocks)
    if (blocks != 0) broken("blocks are out after everything was freed", blocks);
  check_structure<Heap>();
  fail_one_in = 0;
  Heap::recycle();
  check_structure<Heap>();
  if (Heap::PageHeapType::dirty_bytes() != 0) broken("dirty after recycling", Heap::PageHeapType::dirty_bytes());
  printf("held: %lu system calls failed, %lu requests refused\n", failures, refused);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6) return 2;
  const auto failing = static_cast<unsigned>(atoi(argv[4]));
  const auto seed = static_cast<uint64_t>(atoll(argv[1]));
  const auto operations = static_cast<unsigned long>(atol(argv[2]));
  const auto threads = static_cast<unsigned>(atoi(argv[3]));
  return strcmp(argv[5], "stack") == 0 ? run<Tested<hs::RemoteStack>>(seed, operations, threads, failing)
                                       : run<Tested<hs::RemoteBatch<16>>>(seed, operations, threads, failing);
}
