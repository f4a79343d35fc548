#include "record/stacks.h"

#include <string.h>

#include "base/atomic.h"
#include "base/bounded_lock.h"
#include "base/compiler.h"
#include "os/process.h"
#include "os/shared_memory.h"
#include "record/python_frames.h"
#include "record/recording.h"
#include "record/unwind.h"
#include "wire/region.h"

namespace hs::record {

namespace {

constexpr uint32_t kMostNative = 512;
constexpr uint32_t kMostPython = 1024;
constexpr uint32_t kMost = kMostNative + kMostPython;

// Native frames that this thread was in: a call from the same place whose trail reads the same is in them again.
struct Memo {
  uintptr_t sp;
  uintptr_t pc;
  uintptr_t bp;
  uint32_t number;  // of these native frames, never given twice; 0: nothing is kept here
  uint32_t trail_count;
  uint32_t at_words;  // of the room: values, then offsets
  bool uses_bp;
};
constexpr uint32_t kWays = 4;
constexpr uint32_t kSetBits = 8;
constexpr uint32_t kRoomWords = 128 * 1024;

// A stack by its native frames and its chain of Python's, which 64 bits tell from any other.
struct Known {
  uint64_t identity;
  uint32_t node;  // 0: none
};
constexpr uint32_t kKnownWays = 4;
constexpr uint32_t kKnownBits = 12;

// Of a thread: its stacks by where they were captured, and its last one, outermost first, for most of the next is the same.
struct Memory {
  Memo memos[1u << kSetBits][kWays];
  uint8_t next_way[1u << kSetBits];
  Known known[1u << kKnownBits][kKnownWays];
  uint32_t room_used_words;
  uint32_t code_generation;
  uint32_t last_number;
  uint32_t known_count;
  uint64_t room[kRoomWords];
  Trail trail;
  Chain chain;
  NativeFrame native[kMostNative];
  PythonFrame python[kMostPython];
  uint64_t merged[kMost];
  uint64_t keys[kMost];
  uint32_t nodes[kMost];
  uint32_t count;
};

__thread Memory* memory;
__thread bool is_capturing;

// Where a node is by its parent and frame. A larger table takes the place of a full one, whose pages then go back: whoever
// still reads it finds nothing there, and looks again under the lock.
struct Index {
  uint32_t mask;
  uint32_t places[1];
};
Index* index_of_nodes = nullptr;
BoundedLock nodes_lock;

wire::Node* nodes() {
  return reinterpret_cast<wire::Node*>(reinterpret_cast<char*>(recording.header) + wire::kNodesOffsetBytes);
}

HS_FAST_PATH uint32_t scatter(uint32_t parent, uint64_t frame) {
  uint64_t hash = (frame ^ uint64_t{parent} * 0xC2B2AE3D27D4EB4Fu) * 0x9E3779B97F4A7C15u;
  hash ^= hash >> 32;
  return static_cast<uint32_t>(hash);
}

// The node, or 0 and where it would be.
HS_FAST_PATH uint32_t find(const Index& index, uint32_t parent, uint64_t frame, uint32_t& place) {
  for (place = scatter(parent, frame) & index.mask;; place = (place + 1) & index.mask) {
    const uint32_t node = load_acquire(index.places[place]);
    if (node == 0) return 0;
    if (nodes()[node].frame == frame && nodes()[node].parent == parent) return node;
  }
}

size_t bytes_of(size_t capacity) { return sizeof(Index) + capacity * sizeof(uint32_t); }

Index* make_index(uint32_t capacity) {
  auto* index = static_cast<Index*>(map_own(bytes_of(capacity)));
  if (index != nullptr) index->mask = capacity - 1;
  return index;
}

bool make_room(uint32_t used) {
  constexpr uint32_t kFirstCapacity = 4096;
  if (index_of_nodes != nullptr && used * 2 < index_of_nodes->mask) return true;
  Index* smaller = index_of_nodes;
  Index* larger = make_index(smaller == nullptr ? kFirstCapacity : (smaller->mask + 1) * 2);
  if (larger == nullptr) return false;
  for (uint32_t node = 1; node < used; ++node) {
    uint32_t place;
    find(*larger, nodes()[node].parent, nodes()[node].frame, place);
    larger->places[place] = node;
  }
  store_release(index_of_nodes, larger);
  if (smaller != nullptr) empty_own(smaller, bytes_of(smaller->mask + 1));
  return true;
}

HS_SLOW_PATH uint32_t add_node(uint32_t parent, uint64_t frame) {
  const os::KeepErrno keep;
  if (!nodes_lock.lock(os::yield_processor)) return 0;
  wire::RecordingHeader& header = *recording.header;
  const uint32_t used = header.nodes_used == 0 ? 1 : header.nodes_used;
  uint32_t node = 0;
  uint32_t place;
  if (used < wire::kNodeCapacity && make_room(used)) {
    node = find(*index_of_nodes, parent, frame, place);
    const bool is_on_new_page = used == 1 || used % (wire::kPageBytes / sizeof(wire::Node)) == 0;
    if (node == 0 &&
        (!is_on_new_page || os::back_page(&nodes()[used - used % (wire::kPageBytes / sizeof(wire::Node))]))) {
      nodes()[used] = {frame, parent, 0};
      store_release(header.nodes_used, used + 1);
      store_release(index_of_nodes->places[place], used);
      node = used;
    }
  }
  if (node == 0) store_relaxed(header.stacks_lost, header.stacks_lost + 1);
  nodes_lock.unlock();
  return node;
}

HS_FAST_PATH uint32_t node_of(uint32_t parent, uint64_t frame) {
  uint32_t place;
  const Index* index = load_acquire(index_of_nodes);
  const uint32_t node = HS_LIKELY(index != nullptr) ? find(*index, parent, frame, place) : 0;
  return HS_LIKELY(node != 0) ? node : add_node(parent, frame);
}

// Innermost first: where the interpreter loop runs, the Python frames that it executes. A compiler may have split the loop
// into functions of other names, so that it is told by what lies in its frame, where that is known.
uint32_t merge(Memory& own, uintptr_t from, uint32_t native_count, uint32_t python_count) {
  uint32_t merged = 0;
  uint32_t python = 0;
  uint32_t run_end = 0;  // behind the frames of the loop that comes next
  for (uint32_t native = 0; native < native_count; ++native) {
    const NativeFrame& frame = own.native[native];
    if (python == run_end) {
      while (run_end < python_count && own.python[run_end++].entry == 0) {
      }
    }
    const uintptr_t entry = python < run_end ? own.python[run_end - 1].entry : 0;
    const bool is_loop = entry > from && frame.end != 0 ? entry < frame.end : frame.is_eval;
    if (!is_loop || python == run_end) {
      own.merged[merged++] = frame.key;
      continue;
    }
    while (python < run_end) own.merged[merged++] = own.python[python++].key;
  }
  while (python < python_count) own.merged[merged++] = own.python[python++].key;
  return merged;
}

}  // namespace

namespace {

void forget_memos(Memory& own) {
  for (auto& ways : own.memos) {
    for (Memo& memo : ways) memo.number = 0;
  }
  own.room_used_words = 0;
}

// Answers the number of these native frames.
uint32_t keep(Memory& own, const Registers& here, uint32_t set) {
  const Trail& trail = own.trail;
  const uint32_t words = trail.count + (trail.count + 1) / 2;
  if (own.room_used_words + words > kRoomWords) forget_memos(own);
  Memo& memo = own.memos[set][own.next_way[set]++ % kWays];
  memo = {here.sp, here.pc, here.bp, ++own.last_number, trail.count, own.room_used_words, trail.uses_bp};
  uint64_t* to = own.room + own.room_used_words;
  memcpy(to, trail.values, trail.count * sizeof(uint64_t));
  memcpy(to + trail.count, trail.offsets, trail.count * sizeof(uint32_t));
  own.room_used_words += words;
  return memo.number;
}

HS_FAST_PATH bool is_again(const Memory& own, const Memo& memo, const Registers& here) {
  if (memo.number == 0 || memo.sp != here.sp || memo.pc != here.pc || (memo.uses_bp && memo.bp != here.bp)) {
    return false;
  }
  const uint64_t* values = own.room + memo.at_words;
  const auto* offsets = reinterpret_cast<const uint32_t*>(values + memo.trail_count);
  return reads_the_same(here.sp, offsets, values, memo.trail_count);
}

HS_FAST_PATH uint64_t identify(uint32_t number, uint64_t chain_identity) {
  return (chain_identity ^ number * 0xC2B2AE3D27D4EB4Fu) * 0x9E3779B97F4A7C15u;
}

// The stack's node; 0 where it is not known.
HS_FAST_PATH uint32_t find_known(const Memory& own, uint64_t identity) {
  for (const Known& known : own.known[identity >> (64 - kKnownBits)]) {
    if (known.identity == identity) return known.node;
  }
  return 0;
}

void keep_known(Memory& own, uint64_t identity, uint32_t node) {
  Known(&ways)[kKnownWays] = own.known[identity >> (64 - kKnownBits)];
  Known* place = &ways[own.known_count++ % kKnownWays];
  for (Known& known : ways) {
    if (known.node == 0) place = &known;
  }
  *place = {identity, node};
}

// Walks the whole stack; answers its node. `number` is that of its native frames, 0 where they are new.
HS_SLOW_PATH uint32_t walk(Memory& own, const Registers& here, const void* innermost, bool has_chain, uint32_t number,
                           uint32_t set) {
  const uint32_t native_count = walk_native(here, own.native, kMostNative, own.trail);
  uint32_t python_count = 0;
  if (has_chain) {
    python_count = frames_of(own.chain, own.python);
  } else if (innermost != nullptr) {
    python_count = walk_python(innermost, own.python, kMostPython);
  }
  uint32_t left = merge(own, here.sp, native_count, python_count);
  uint32_t depth = 0;
  uint32_t node = 0;
  while (left > 0 && depth < own.count && own.keys[depth] == own.merged[left - 1]) {
    node = own.nodes[depth++];
    --left;
  }
  bool is_whole = own.trail.is_whole && (innermost == nullptr || has_chain);
  while (left > 0) {
    const uint64_t key = own.merged[--left];
    const uint32_t child = node_of(node, key);
    if (child == 0) {
      is_whole = false;
      break;
    }
    own.keys[depth] = key;
    own.nodes[depth++] = node = child;
  }
  own.count = depth;
  if (is_whole && node != 0) {
    if (number == 0) number = keep(own, here, set);
    keep_known(own, identify(number, has_chain ? identity_of(own.chain) : 0), node);
  }
  return node;
}

}  // namespace

__attribute__((noinline, optimize("no-omit-frame-pointer"))) uint32_t capture_stack() {
  if (HS_UNLIKELY(recording.header == nullptr || is_capturing)) return 0;
  is_capturing = true;
  if (HS_UNLIKELY(memory == nullptr)) memory = static_cast<Memory*>(map_own(sizeof(Memory)));
  uint32_t node = 0;
  if (HS_LIKELY(memory != nullptr)) {
    Memory& own = *memory;
    if (HS_UNLIKELY(own.code_generation != load_relaxed(code_generation))) {
      own.code_generation = load_relaxed(code_generation);
      forget_memos(own);
      own.count = 0;
    }
    const auto frame = reinterpret_cast<uintptr_t>(__builtin_frame_address(0));
    const auto* words = reinterpret_cast<const uintptr_t*>(frame);
    const Registers here = {words[1], frame + 2 * sizeof(uintptr_t), words[0]};
    const void* innermost = innermost_frame();
    const bool has_chain = innermost != nullptr && follow(own.chain, innermost);
    // What the interpreter does at one instruction, it mostly does by the same functions.
    const uint64_t instruction = has_chain ? own.chain.instructions[own.chain.count] : 0;
    const uint64_t hash = (here.sp ^ here.pc << 20 ^ instruction << 12) * 0x9E3779B97F4A7C15u;
    const uint32_t set = static_cast<uint32_t>(hash >> (64 - kSetBits));
    uint32_t number = 0;
    for (const Memo& memo : own.memos[set]) {
      if (is_again(own, memo, here)) {
        number = memo.number;
        break;
      }
    }
    if (HS_LIKELY(number != 0 && (innermost == nullptr || has_chain))) {
      node = find_known(own, identify(number, has_chain ? identity_of(own.chain) : 0));
    }
    if (HS_UNLIKELY(node == 0)) node = walk(own, here, innermost, has_chain, number, set);
  }
  is_capturing = false;
  return node;
}

void forget_stacks() {
  nodes_lock.reset();
  // The tables of the parent's tree are left to the child's memory, which shares them until it writes.
  index_of_nodes = nullptr;
  drop_stack_memory();
  is_capturing = false;
}

void drop_stack_memory() {
  if (memory != nullptr) unmap_own(memory, sizeof(Memory));
  memory = nullptr;
}

}  // namespace hs::record
