#include "probe/python.h"

#include <dlfcn.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>

#include "base/atomic.h"
#include "base/compiler.h"
#include "os/process.h"
#include "os/shared_memory.h"
#include "probe/python_objects.h"

// Weak: most programs have no interpreter, and
// asking the dynamic linker for a name that is not there would allocate.
extern "C" {
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

size_t largest_for_pools_bytes = kLargestObjectBytes;
uint64_t* pool_leaves[1u << kRootBits];
__thread bool is_taking_arena;

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
  return objects::allocate(context, bytes);
}

void* allocate_zeroed_noted(void* context, size_t count, size_t bytes) {
  const ThroughOurs here;
  return objects::allocate_zeroed(context, count, bytes);
}

void* reallocate_noted(void* context, void* block, size_t bytes) {
  const ThroughOurs here;
  return objects::reallocate(context, block, bytes);
}

void wrap_domains() {
  for (int domain = kMemory; domain <= kObject; ++domain) {
    interpreter.get_allocator(domain, &wrapped[domain]);
    PyMemAllocatorEx ours = {&wrapped[domain], allocate_noted, allocate_zeroed_noted, reallocate_noted,
                             objects::deallocate};
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
    PyMemAllocatorEx ours = {&wrapped[domain], objects::allocate, objects::allocate_zeroed, objects::reallocate,
                             objects::deallocate};
    interpreter.set_allocator(domain, &ours);
  }
}

void* allocate_arena(void*, size_t bytes) {
  is_taking_arena = true;
  void* arena = wrapped_arenas.allocate(wrapped_arenas.context, bytes);
  is_taking_arena = false;
  if (arena == nullptr) return nullptr;
  const os::KeepErrno keep;
  mark_pools(arena, bytes, true);
  objects::change_arena_bytes(static_cast<int64_t>(bytes));
  if (state == wire::PythonState::kCounted && !is_settled) settle_domains();
  return arena;
}

void deallocate_arena(void*, void* arena, size_t bytes) {
  {
    const os::KeepErrno keep;
    mark_pools(arena, bytes, false);
    objects::change_arena_bytes(-static_cast<int64_t>(bytes));
  }
  is_taking_arena = true;
  wrapped_arenas.deallocate(wrapped_arenas.context, arena, bytes);
  is_taking_arena = false;
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
    state = objects::are_wanted() ? wire::PythonState::kCounted : wire::PythonState::kNotWanted;
    note = objects::are_wanted() ? "" : "not wanted: they show as mapped arenas";
    PyObjectArenaAllocator arenas = {nullptr, allocate_arena, deallocate_arena};
    interpreter.get_arena_allocator(&wrapped_arenas);
    interpreter.set_arena_allocator(&arenas);
    if (objects::are_wanted()) wrap_domains();
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

void watch_python() {
  if (PyMem_SetAllocator == nullptr || PyObject_SetArenaAllocator == nullptr) return;
  // Since 3.11 an interpreter says its version.
  const auto version = &Py_Version == nullptr ? 0 : static_cast<uint32_t>(Py_Version);
  objects::found(nullptr, version);
  watch({PyMem_GetAllocator, PyMem_SetAllocator, PyObject_GetArenaAllocator, PyObject_SetArenaAllocator, version,
         _Py_MergeZeroLocalRefcount != nullptr});
}

void watch_running_python() {
  watch_python();
  if (state == wire::PythonState::kCounted && !is_settled) settle_domains();
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
  const uint32_t number = version == nullptr ? 0 : static_cast<uint32_t>(*version);
  objects::found(library, number);
  dlclose(library);
  dlerror();
  if (found.set_allocator == nullptr || found.set_arena_allocator == nullptr) return;
  found.version = number;
  watch(found);
  // This mapping is an arena that was asked for before ours were in place.
  if (state == wire::PythonState::kCounted) mark_pools(mapping, bytes, true);
  if (state == wire::PythonState::kCounted || state == wire::PythonState::kNotWanted) {
    objects::change_arena_bytes(static_cast<int64_t>(bytes));
  }
}

void describe_python() { objects::tell(state, interpreter.version, note); }

}  // namespace hs::probe
