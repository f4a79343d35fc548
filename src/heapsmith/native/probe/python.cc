#include "probe/python.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "base/atomic.h"
#include "base/compiler.h"
#include "os/process.h"
#include "os/shared_memory.h"
#include "probe/count.h"
#include "probe/region.h"
#include "probe/thread.h"

// CPython's public allocator interface (PEP 445), the same from 3.4 on. Weak: most programs have no interpreter, and
// asking the dynamic linker for a name that is not there would allocate.
extern "C" {
struct PyMemAllocatorEx {
  void* context;
  void* (*allocate)(void* context, size_t bytes);
  void* (*allocate_zeroed)(void* context, size_t count, size_t bytes);
  void* (*reallocate)(void* context, void* block, size_t bytes);
  void (*deallocate)(void* context, void* block);
};
struct PyObjectArenaAllocator {
  void* context;
  void* (*allocate)(void* context, size_t bytes);
  void (*deallocate)(void* context, void* arena, size_t bytes);
};
void PyMem_GetAllocator(int domain, PyMemAllocatorEx*) __attribute__((weak));
void PyMem_SetAllocator(int domain, PyMemAllocatorEx*) __attribute__((weak));
void PyObject_GetArenaAllocator(PyObjectArenaAllocator*) __attribute__((weak));
void PyObject_SetArenaAllocator(PyObjectArenaAllocator*) __attribute__((weak));
extern const unsigned long Py_Version __attribute__((weak));
// Only free-threaded builds have it; their objects lie in mimalloc's pages, whose sizes nobody outside can ask for.
void _Py_MergeZeroLocalRefcount(void*) __attribute__((weak));
}

namespace hs::probe {

namespace {

struct Interpreter {
  decltype(&PyMem_GetAllocator) get_allocator;
  decltype(&PyMem_SetAllocator) set_allocator;
  decltype(&PyObject_GetArenaAllocator) get_arena_allocator;
  decltype(&PyObject_SetArenaAllocator) set_arena_allocator;
  uint32_t version;
  bool is_free_threaded;
};

enum Domain : int { kMemory = 1, kObject = 2 };
constexpr int kDomains = 3;
constexpr uint32_t kOldest = 0x030B0000;
constexpr uint32_t kNewest = 0x030FFFFF;

Interpreter interpreter = {};
PyMemAllocatorEx wrapped[kDomains];
PyObjectArenaAllocator wrapped_arenas;
wire::PythonState state = wire::PythonState::kNoPython;
const char* note = "";

// pymalloc: 16 KiB pools, aligned, in arenas of 1 MiB; a pool's header says which size its blocks have.
constexpr uint32_t kPoolBits = 14;
constexpr uint32_t kGranuleBits = 20;
constexpr size_t kArenaBytes = size_t{1} << kGranuleBits;
constexpr size_t kSizeIndexOffsetBytes = 36;
constexpr size_t kLargestObjectBytes = 512;

// An empty request goes to malloc, like a large one.
HS_FAST_PATH bool is_for_pools(size_t bytes) { return bytes - 1 < kLargestObjectBytes; }

// Which pools are CPython's: a bit for each pool of a granule of 1 MiB, in leaves that are made when a first arena comes
// to their 8 GiB of addresses.
constexpr uint32_t kLeafBits = 13;
constexpr uint32_t kRootBits = 47 - kGranuleBits - kLeafBits;
uint64_t* pool_leaves[1u << kRootBits];

HS_FAST_PATH bool is_in_pool(const void* block) {
  const auto address = reinterpret_cast<uintptr_t>(block);
  const uintptr_t root = address >> (kGranuleBits + kLeafBits);
  if (HS_UNLIKELY(root >= (uintptr_t{1} << kRootBits))) return false;
  const uint64_t* leaf = load_relaxed(pool_leaves[root]);
  if (leaf == nullptr) return false;
  const uint64_t pools = load_relaxed(leaf[(address >> kGranuleBits) & ((1u << kLeafBits) - 1)]);
  return (pools >> ((address >> kPoolBits) & 63u) & 1u) != 0;
}

HS_FAST_PATH size_t object_bytes(const void* block) {
  const auto pool = reinterpret_cast<uintptr_t>(block) & ~((uintptr_t{1} << kPoolBits) - 1);
  const uint32_t size_index = *reinterpret_cast<const uint32_t*>(pool + kSizeIndexOffsetBytes);
  return (size_t{size_index} + 1) << 4;
}

void mark_pools(void* arena, size_t bytes, bool present) {
  const auto begin = reinterpret_cast<uintptr_t>(arena);
  constexpr uintptr_t kPoolBytes = uintptr_t{1} << kPoolBits;
  const uintptr_t first = (begin + kPoolBytes - 1) & ~(kPoolBytes - 1);
  for (uintptr_t pool = first; pool + kPoolBytes <= begin + bytes; pool += kPoolBytes) {
    const uintptr_t root = pool >> (kGranuleBits + kLeafBits);
    if (root >= (uintptr_t{1} << kRootBits)) return;
    uint64_t* leaf = load_acquire(pool_leaves[root]);
    if (leaf == nullptr) {
      constexpr size_t kLeafBytes = sizeof(uint64_t) << kLeafBits;
      auto* fresh = static_cast<uint64_t*>(os::map_private(kLeafBytes));
      if (fresh == nullptr) return;
      if (__atomic_compare_exchange_n(&pool_leaves[root], &leaf, fresh, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
        leaf = fresh;
      } else {
        os::unmap(fresh, kLeafBytes);
      }
    }
    uint64_t& pools = leaf[(pool >> kGranuleBits) & ((1u << kLeafBits) - 1)];
    const uint64_t bit = uint64_t{1} << ((pool >> kPoolBits) & 63u);
    if (present) {
      __atomic_fetch_or(&pools, bit, __ATOMIC_RELEASE);
    } else {
      __atomic_fetch_and(&pools, ~bit, __ATOMIC_RELEASE);
    }
  }
}

void change_arena_bytes(int64_t bytes) {
  if (this_thread.slot == nullptr && attach() == nullptr && !can_share()) return;
  wire::RegionHeader& header = *region.header;
  raise_to(header.python_arena_bytes_peak, fetch_add_relaxed(header.python_arena_bytes, bytes) + bytes);
}

HS_FAST_PATH uint32_t small_index(size_t object) { return static_cast<uint32_t>((object + 7) >> 4); }

// The slot of this thread's Python objects; null where the thread shares.
HS_FAST_PATH wire::Slot* python_slot() {
  wire::Slot* slot = this_thread.python;
  return HS_LIKELY(slot != nullptr) ? slot : attach_python();
}

// While CPython fetches a block that is too large for its pools, malloc files it as Python's.
class FileAsPython {
 public:
  FileAsPython() : before_(this_thread.cells) {
    wire::Slot* slot = python_slot();
    if (slot != nullptr) {
      before_ = this_thread.cells;
      this_thread.cells = slot;
    }
  }
  ~FileAsPython() { this_thread.cells = this_thread.slot == nullptr ? nullptr : before_; }
  FileAsPython(const FileAsPython&) = delete;
  FileAsPython& operator=(const FileAsPython&) = delete;

 private:
  wire::Slot* before_;
};

HS_SLOW_PATH void* refuse(PyMemAllocatorEx& from, void* block) {
  from.deallocate(from.context, block);
  return nullptr;
}

HS_SLOW_PATH void* file_shared(PyMemAllocatorEx& from, void* block, size_t requested_bytes) {
  if (!can_share()) return block;
  if (!look_up_shared(static_cast<int64_t>(object_bytes(block)), requested_bytes)) return refuse(from, block);
  count_shared_allocation(wire::SlotKind::kEndedPython, object_bytes(block), requested_bytes);
  return block;
}

HS_FAST_PATH void* file_object(PyMemAllocatorEx& from, void* block, size_t requested_bytes) {
  if (HS_UNLIKELY(block == nullptr) || HS_UNLIKELY(!is_in_pool(block))) return block;
  wire::Slot* objects = python_slot();
  if (HS_UNLIKELY(objects == nullptr)) return file_shared(from, block, requested_bytes);
  const size_t bytes = object_bytes(block);
  if (HS_UNLIKELY(!account_allocation(*this_thread.slot, bytes, requested_bytes))) return refuse(from, block);
  count_allocation(*objects, small_index(bytes), requested_bytes, block);
  return block;
}

HS_FAST_PATH void unfile_object(const void* block) {
  wire::Slot* objects = python_slot();
  const size_t bytes = object_bytes(block);
  if (HS_UNLIKELY(objects == nullptr)) {
    if (!can_share()) return;
    count_shared_free(wire::SlotKind::kEndedPython, bytes);
    look_up_shared(-static_cast<int64_t>(bytes), 0);
    return;
  }
  count_free(*objects, small_index(bytes), block);
  account_free(*this_thread.slot, bytes);
}

void* allocate(void* context, size_t bytes) {
  auto& from = *static_cast<PyMemAllocatorEx*>(context);
  if (HS_LIKELY(is_for_pools(bytes))) return file_object(from, from.allocate(from.context, bytes), bytes);
  const FileAsPython here;
  return from.allocate(from.context, bytes);
}

void* allocate_zeroed(void* context, size_t count, size_t bytes) {
  auto& from = *static_cast<PyMemAllocatorEx*>(context);
  size_t whole_bytes;
  if (__builtin_mul_overflow(count, bytes, &whole_bytes)) whole_bytes = SIZE_MAX;
  if (HS_LIKELY(is_for_pools(whole_bytes))) {
    return file_object(from, from.allocate_zeroed(from.context, count, bytes), whole_bytes);
  }
  const FileAsPython here;
  return from.allocate_zeroed(from.context, count, bytes);
}

void* reallocate(void* context, void* block, size_t bytes) {
  auto& from = *static_cast<PyMemAllocatorEx*>(context);
  if (block == nullptr) return allocate(context, bytes);
  const bool was_object = is_in_pool(block);
  const size_t old_bytes = was_object ? object_bytes(block) : 0;
  if (was_object && bytes > old_bytes) {
    wire::Slot* slot = python_slot() != nullptr ? this_thread.slot : nullptr;
    if (slot != nullptr && !would_admit(*slot, bytes - old_bytes, bytes)) return nullptr;
  }
  void* moved;
  {
    const FileAsPython here;
    moved = from.reallocate(from.context, block, bytes);
  }
  if (moved == nullptr) return nullptr;
  wire::Slot* objects = python_slot();
  const bool is_object = is_in_pool(moved);
  const size_t new_bytes = is_object ? object_bytes(moved) : 0;
  if (objects == nullptr) {
    if (!can_share()) return moved;
    if (was_object) count_shared_free(wire::SlotKind::kEndedPython, old_bytes);
    if (is_object) count_shared_allocation(wire::SlotKind::kEndedPython, new_bytes, bytes);
    grow_shared(static_cast<int64_t>(new_bytes) - static_cast<int64_t>(old_bytes));
    return moved;
  }
  if (was_object) count_free(*objects, small_index(old_bytes), block);
  if (is_object) count_allocation(*objects, small_index(new_bytes), bytes, moved);
  if (was_object && is_object) ++objects->reallocations;
  wire::Slot& slot = *this_thread.slot;
  slot.live_bytes += static_cast<int64_t>(new_bytes) - static_cast<int64_t>(old_bytes);
  if (slot.live_bytes > slot.mark_high_bytes || slot.live_bytes < slot.mark_low_bytes) look_up(slot, 0, bytes);
  return moved;
}

void deallocate(void* context, void* block) {
  auto& from = *static_cast<PyMemAllocatorEx*>(context);
  if (HS_LIKELY(block != nullptr && is_in_pool(block))) {
    unfile_object(block);
    from.deallocate(from.context, block);
    return;
  }
  const FileAsPython here;
  from.deallocate(from.context, block);
}

bool is_wrapped(int domain) {
  PyMemAllocatorEx now = {};
  interpreter.get_allocator(domain, &now);
  return now.allocate == allocate;
}

void wrap_domains() {
  for (int domain = kMemory; domain <= kObject; ++domain) {
    if (is_wrapped(domain)) continue;
    interpreter.get_allocator(domain, &wrapped[domain]);
    PyMemAllocatorEx ours = {&wrapped[domain], allocate, allocate_zeroed, reallocate, deallocate};
    interpreter.set_allocator(domain, &ours);
  }
}

void* allocate_arena(void*, size_t bytes) {
  void* arena = wrapped_arenas.allocate(wrapped_arenas.context, bytes);
  if (arena == nullptr) return nullptr;
  const os::KeepErrno keep;
  mark_pools(arena, bytes, true);
  change_arena_bytes(static_cast<int64_t>(bytes));
  return arena;
}

void deallocate_arena(void*, void* arena, size_t bytes) {
  {
    const os::KeepErrno keep;
    mark_pools(arena, bytes, false);
    change_arena_bytes(-static_cast<int64_t>(bytes));
  }
  wrapped_arenas.deallocate(wrapped_arenas.context, arena, bytes);
}

bool wants_other_allocator() {
  const char* choice = secure_getenv("PYTHONMALLOC");
  return choice != nullptr && (strncmp(choice, "malloc", 6) == 0 || strncmp(choice, "mimalloc", 8) == 0);
}

void watch(const Interpreter& found) {
  interpreter = found;
  state = wire::PythonState::kNotPossible;
  if (found.is_free_threaded) {
    note = "a free-threaded build keeps its objects in mimalloc's pages: they show as mapped";
  } else if (found.version < kOldest || found.version > kNewest) {
    note = "only CPython 3.11 to 3.15 is known";
  } else if (wants_other_allocator()) {
    note = "PYTHONMALLOC sends its objects to malloc: they are native blocks";
  } else {
    state = region.python_objects_wanted ? wire::PythonState::kCounted : wire::PythonState::kNotWanted;
    note = region.python_objects_wanted ? "" : "not wanted: they show as mapped arenas";
    PyObjectArenaAllocator arenas = {nullptr, allocate_arena, deallocate_arena};
    interpreter.get_arena_allocator(&wrapped_arenas);
    interpreter.set_arena_allocator(&arenas);
    if (region.python_objects_wanted) wrap_domains();
  }
  describe_python();
}

template <class Function>
void find(void* object, Function& function, const char* name) {
  function = reinterpret_cast<Function>(dlsym(object, name));
}

}  // namespace

void watch_python() {
  if (PyMem_SetAllocator == nullptr || PyObject_SetArenaAllocator == nullptr || &Py_Version == nullptr) return;
  watch({PyMem_GetAllocator, PyMem_SetAllocator, PyObject_GetArenaAllocator, PyObject_SetArenaAllocator,
         static_cast<uint32_t>(Py_Version), _Py_MergeZeroLocalRefcount != nullptr});
}

void look_for_python(const void* caller, void* mapping, size_t bytes) {
  if (HS_LIKELY(bytes != kArenaBytes)) return;
  if (interpreter.set_allocator != nullptr) {
    // An interpreter that read its configuration may have put other allocators over ours (its debug hooks).
    if (state == wire::PythonState::kCounted && !is_wrapped(kObject)) wrap_domains();
    return;
  }
  Dl_info object;
  if (dladdr(caller, &object) == 0 || strstr(object.dli_fname, "libpython3.") == nullptr) return;
  void* library = dlopen(object.dli_fname, RTLD_NOLOAD | RTLD_LAZY);
  if (library == nullptr) return;
  Interpreter found = {};
  find(library, found.get_allocator, "PyMem_GetAllocator");
  find(library, found.set_allocator, "PyMem_SetAllocator");
  find(library, found.get_arena_allocator, "PyObject_GetArenaAllocator");
  find(library, found.set_arena_allocator, "PyObject_SetArenaAllocator");
  const auto* version = static_cast<const unsigned long*>(dlsym(library, "Py_Version"));
  dlclose(library);
  if (version == nullptr || found.set_allocator == nullptr || found.set_arena_allocator == nullptr) return;
  found.version = static_cast<uint32_t>(*version);
  watch(found);
  // This mapping is an arena that was asked for before ours were in place.
  if (state == wire::PythonState::kCounted) mark_pools(mapping, bytes, true);
  if (state == wire::PythonState::kCounted || state == wire::PythonState::kNotWanted) {
    change_arena_bytes(static_cast<int64_t>(bytes));
  }
}

void describe_python() {
  if (region.header == nullptr) return;
  region.header->python_state = static_cast<uint32_t>(state);
  region.header->python_version = interpreter.version;
  strncpy(region.header->python_note, note, sizeof region.header->python_note - 1);
}

}  // namespace hs::probe
