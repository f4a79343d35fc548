#include "probe/python.h"

#include <dlfcn.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>

#include "base/atomic.h"
#include "base/compiler.h"
#include "os/process.h"
#include "os/shared_memory.h"
#include "probe/account.h"
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

// What _dl_find_object of newer C libraries fills in (dl_find_object(3)); declared here, for older headers lack it.
struct FoundObject {
  unsigned long long flags;
  void* begin;
  void* end;
  link_map* map;
  void* unwinding;
  unsigned long long reserved[7];
};
int find_object_of(void* code, FoundObject*) __asm__("_dl_find_object") __attribute__((weak));
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

// What the interpreter's debug hooks put around an object.
constexpr size_t kDebugBytes = 32;
size_t largest_for_pools_bytes = kLargestObjectBytes;

// Whether a request surely goes to the pools; an empty one goes to malloc, like a large one.
HS_FAST_PATH bool is_for_pools(size_t bytes) { return bytes - 1 < largest_for_pools_bytes; }

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

// The class of an object: pymalloc's own, counted from 1, is also the wire's, since both are 16 bytes wide.
HS_FAST_PATH uint32_t object_index(const void* block) {
  const auto pool = reinterpret_cast<uintptr_t>(block) & ~((uintptr_t{1} << kPoolBits) - 1);
  return *reinterpret_cast<const uint32_t*>(pool + kSizeIndexOffsetBytes) + 1;
}

HS_FAST_PATH size_t object_bytes(const void* block) { return size_t{object_index(block)} << 4; }

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

// The slot of this thread's Python objects; null where the thread shares.
HS_FAST_PATH wire::Slot* python_slot() {
  wire::Slot* slot = this_thread.python;
  return HS_LIKELY(slot != nullptr) ? slot : attach_python();
}

// While CPython fetches a block that is too large for its pools, malloc files it as Python's.
class FileAsPython {
 public:
  FileAsPython() : before_(this_thread.files_as_python) {
    python_slot();
    this_thread.files_as_python = true;
    this_thread.fast = nullptr;
  }
  ~FileAsPython() {
    this_thread.files_as_python = before_;
    if (!before_ && has_fast_sizes) this_thread.fast = this_thread.slot;
  }
  FileAsPython(const FileAsPython&) = delete;
  FileAsPython& operator=(const FileAsPython&) = delete;

 private:
  bool before_;
};

HS_SLOW_PATH void* file_object_slowly(PyMemAllocatorEx& from, void* block, size_t requested_bytes) {
  if (block == nullptr || !is_in_pool(block)) return block;
  const size_t bytes = object_bytes(block);
  bool admitted = true;
  if (wire::Slot* objects = python_slot()) {
    admitted = file_slowly(*objects, block, bytes, requested_bytes);
  } else if (can_share()) {
    admitted = file_shared(block, bytes, requested_bytes, wire::SlotKind::kEndedPython);
  }
  if (admitted) return block;
  from.deallocate(from.context, block);
  return nullptr;
}

HS_FAST_PATH void* file_object(PyMemAllocatorEx& from, void* block, size_t requested_bytes) {
  wire::Slot* objects = this_thread.python;
  if (HS_LIKELY(objects != nullptr && block != nullptr && is_in_pool(block)) &&
      HS_LIKELY(file_fast(*this_thread.slot, *objects, block, object_bytes(block), object_index(block)))) {
    return block;
  }
  return file_object_slowly(from, block, requested_bytes);
}

HS_SLOW_PATH void unfile_object_slowly(const void* block) {
  if (wire::Slot* objects = python_slot()) {
    unfile_slowly(*objects, block, object_bytes(block));
  } else if (can_share()) {
    unfile_shared(block, object_bytes(block), wire::SlotKind::kEndedPython);
  }
}

HS_FAST_PATH void unfile_object(const void* block) {
  wire::Slot* objects = this_thread.python;
  if (HS_LIKELY(objects != nullptr) &&
      HS_LIKELY(unfile_fast(*this_thread.slot, *objects, block, object_bytes(block), object_index(block)))) {
    return;
  }
  unfile_object_slowly(block);
}

void* allocate(void* context, size_t bytes) {
  auto& from = *static_cast<PyMemAllocatorEx*>(context);
  if (HS_LIKELY(is_for_pools(bytes))) return file_object(from, from.allocate(from.context, bytes), bytes);
  const FileAsPython here;
  return file_object(from, from.allocate(from.context, bytes), bytes);
}

void* allocate_zeroed(void* context, size_t count, size_t bytes) {
  auto& from = *static_cast<PyMemAllocatorEx*>(context);
  size_t whole_bytes;
  if (__builtin_mul_overflow(count, bytes, &whole_bytes)) whole_bytes = SIZE_MAX;
  if (HS_LIKELY(is_for_pools(whole_bytes))) {
    return file_object(from, from.allocate_zeroed(from.context, count, bytes), whole_bytes);
  }
  const FileAsPython here;
  return file_object(from, from.allocate_zeroed(from.context, count, bytes), whole_bytes);
}

void* reallocate(void* context, void* block, size_t bytes) {
  auto& from = *static_cast<PyMemAllocatorEx*>(context);
  if (block == nullptr) return allocate(context, bytes);
  if (!is_in_pool(block)) {
    // From malloc; where it shrinks into a pool, the block in the pool is a new one.
    const FileAsPython here;
    return file_object(from, from.reallocate(from.context, block, bytes), bytes);
  }
  const size_t old_bytes = object_bytes(block);
  wire::Slot* objects = python_slot();
  if (objects != nullptr && bytes > old_bytes && !would_admit(*this_thread.slot, bytes - old_bytes, bytes)) {
    return nullptr;
  }
  Moving moving = {block, old_bytes};
  if (objects != nullptr) moving = begin_move(*objects, block, old_bytes);
  void* moved;
  {
    const FileAsPython here;
    moved = from.reallocate(from.context, block, bytes);
  }
  if (objects == nullptr) {
    if (moved != nullptr && can_share()) {
      unfile_shared(block, old_bytes, wire::SlotKind::kEndedPython);
      return file_object_slowly(from, moved, bytes);
    }
  } else if (moved == nullptr) {
    cancel_move(*objects, moving);
  } else if (is_in_pool(moved)) {
    end_move(*objects, moving, moved, object_bytes(moved), bytes);
  } else {  // to malloc, which has filed it
    account_growth(*this_thread.slot, -static_cast<int64_t>(old_bytes));
  }
  return moved;
}

void deallocate(void* context, void* block) {
  auto& from = *static_cast<PyMemAllocatorEx*>(context);
  if (HS_LIKELY(block != nullptr && is_in_pool(block))) {
    unfile_object(block);
    return from.deallocate(from.context, block);
  }
  const FileAsPython here;
  from.deallocate(from.context, block);
}

// An interpreter that reads its configuration may put others in our place (its debug hooks), and whoever comes later puts
// others over ours (tracemalloc): to wrap those would send every request round in a circle. So until the first arena is
// asked for, it is noted whether a request came through ours.
__thread bool came_through_ours;
bool is_settled = false;

class ThroughOurs {
 public:
  ThroughOurs() { came_through_ours = true; }
  ~ThroughOurs() { came_through_ours = false; }
  ThroughOurs(const ThroughOurs&) = delete;
  ThroughOurs& operator=(const ThroughOurs&) = delete;
};

void* allocate_noted(void* context, size_t bytes) {
  const ThroughOurs here;
  return allocate(context, bytes);
}

void* allocate_zeroed_noted(void* context, size_t count, size_t bytes) {
  const ThroughOurs here;
  return allocate_zeroed(context, count, bytes);
}

void* reallocate_noted(void* context, void* block, size_t bytes) {
  const ThroughOurs here;
  return reallocate(context, block, bytes);
}

void wrap_domains() {
  for (int domain = kMemory; domain <= kObject; ++domain) {
    interpreter.get_allocator(domain, &wrapped[domain]);
    PyMemAllocatorEx ours = {&wrapped[domain], allocate_noted, allocate_zeroed_noted, reallocate_noted, deallocate};
    interpreter.set_allocator(domain, &ours);
  }
}

// Ours, without the note, where nobody stands over them; over others that stand in their place.
void settle_domains() {
  is_settled = true;
  for (int domain = kMemory; domain <= kObject; ++domain) {
    PyMemAllocatorEx now = {};
    interpreter.get_allocator(domain, &now);
    if (now.allocate != allocate_noted) {
      if (came_through_ours) continue;
      wrapped[domain] = now;
      largest_for_pools_bytes = kLargestObjectBytes - kDebugBytes;
    }
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
  if (state == wire::PythonState::kCounted && !is_settled) settle_domains();
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
    note = "only those of CPython 3.11 to 3.15 can be";
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

// Never waits for the linker's lock where that can be helped: its owner may be waiting for this thread.
const char* path_of_object(const void* code) {
  if (find_object_of != nullptr) {
    FoundObject found = {};
    return find_object_of(const_cast<void*>(code), &found) == 0 ? found.map->l_name : nullptr;
  }
  Dl_info object;
  return dladdr(code, &object) != 0 ? object.dli_fname : nullptr;
}

template <class Function>
void find(void* object, Function& function, const char* name) {
  function = reinterpret_cast<Function>(dlsym(object, name));
}

}  // namespace

void watch_python() {
  if (PyMem_SetAllocator == nullptr || PyObject_SetArenaAllocator == nullptr) return;
  // Since 3.11 an interpreter says its version.
  const auto version = &Py_Version == nullptr ? 0 : static_cast<uint32_t>(Py_Version);
  watch({PyMem_GetAllocator, PyMem_SetAllocator, PyObject_GetArenaAllocator, PyObject_SetArenaAllocator, version,
         _Py_MergeZeroLocalRefcount != nullptr});
}

void look_for_python(const void* caller, void* mapping, size_t bytes) {
  if (HS_LIKELY(bytes != kArenaBytes)) return;
  if (interpreter.set_allocator != nullptr) return;
  const char* path = path_of_object(caller);
  if (path == nullptr || strstr(path, "libpython3.") == nullptr) return;
  void* library = dlopen(path, RTLD_NOLOAD | RTLD_LAZY);
  if (library == nullptr) return;
  Interpreter found = {};
  find(library, found.get_allocator, "PyMem_GetAllocator");
  find(library, found.set_allocator, "PyMem_SetAllocator");
  find(library, found.get_arena_allocator, "PyObject_GetArenaAllocator");
  find(library, found.set_arena_allocator, "PyObject_SetArenaAllocator");
  const auto* version = static_cast<const unsigned long*>(dlsym(library, "Py_Version"));
  found.is_free_threaded = dlsym(library, "_Py_MergeZeroLocalRefcount") != nullptr;
  dlclose(library);
  dlerror();
  if (found.set_allocator == nullptr || found.set_arena_allocator == nullptr) return;
  found.version = version == nullptr ? 0 : static_cast<uint32_t>(*version);
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
