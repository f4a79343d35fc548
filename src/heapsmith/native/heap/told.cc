#include "heap/told.h"

#include <dlfcn.h>
#include <malloc.h>
#include <stddef.h>
#include <string.h>

#include "base/atomic.h"

namespace hs {

namespace {

// Looks functions up in one object, and believes only those that live there. Looking up allocates, so each
// name is looked up once: `find` fills a pointer that stays.
class Object {
 public:
  explicit Object(const void* address) {
    Dl_info info = {};
    if (dladdr(address, &info) == 0) return;
    base_ = info.dli_fbase;
    path_ = info.dli_fname != nullptr ? info.dli_fname : "";
    // By the object itself: the global search would find a namesake that comes before it.
    handle_ = dlopen(path_, RTLD_LAZY | RTLD_NOLOAD);
  }
  Object(const Object&) = delete;
  ~Object() {
    if (handle_ != nullptr) dlclose(handle_);
    // The text of the last failed search is kept until the next but one asks for it.
    dlerror();
    dlerror();
  }
  template <class Function>
  bool find(Function& function, const char* name) const {
    void* found = handle_ != nullptr ? dlsym(handle_, name) : nullptr;
    if (found == nullptr) found = dlsym(RTLD_DEFAULT, name);
    Dl_info info = {};
    if (found == nullptr || dladdr(found, &info) == 0 || info.dli_fbase != base_) return false;
    function = reinterpret_cast<Function>(found);
    return true;
  }
  const char* path() const { return path_; }
  bool is_known() const { return base_ != nullptr; }

 private:
  void* base_ = nullptr;
  void* handle_ = nullptr;
  const char* path_ = "";
};

void say(Told& told, uint64_t field, uint64_t& place, uint64_t bytes, bool is_exact) {
  place = bytes;
  told.valid |= field;
  if (is_exact) told.exact |= field;
}

uint64_t round_down(uint64_t bytes, uint64_t to) { return bytes / to * to; }

uint64_t largest_in_pages(uint64_t available_bytes, uint64_t own_bytes = 32) {
  const uint64_t pages = round_down(available_bytes, 4096);
  return pages > own_bytes ? pages - own_bytes : 0;
}
uint64_t largest_by_pages(uint64_t available_bytes) { return largest_in_pages(available_bytes); }
// dlmalloc adds room for six words and an alignment before it rounds up.
uint64_t largest_in_dlmalloc(uint64_t available_bytes) { return largest_in_pages(available_bytes, 128); }

// Four size classes to a doubling.
uint64_t largest_in_quarters(uint64_t available_bytes) {
  if (available_bytes < 16384) return available_bytes;
  const uint64_t quarter = 1ull << (63 - __builtin_clzll(available_bytes) - 2);
  return round_down(available_bytes, quarter);
}

uint64_t largest_in_eight_kib(uint64_t available_bytes) { return round_down(available_bytes, 8192); }

// For those whose rounding nobody knows: whole powers of two, and a page for words of their own.
uint64_t largest_power_of_two(uint64_t available_bytes) {
  constexpr uint64_t kRoom = 4096;
  return available_bytes <= kRoom ? 0 : 1ull << (63 - __builtin_clzll(available_bytes - kRoom));
}

uint64_t largest_in_64_kib(uint64_t available_bytes) {
  const uint64_t rounded = round_down(available_bytes, 65536);
  return rounded > 65536 ? rounded - 65536 : 0;
}

// One adapter for each allocator: `find` says whether it is this one, `ask` asks it.

struct mallinfo2 (*glibc_info)();

bool find_glibc(const Object& object) {
  const char* (*version)() = nullptr;
  // Before 2.33 there is only mallinfo, whose ints wrap at 2 GiB.
  object.find(glibc_info, "mallinfo2");
  return object.find(version, "gnu_get_libc_version");
}

void ask_glibc(Told& told) {
  strcpy(told.name, "glibc");
  told.largest_request = largest_by_pages;
  if (glibc_info == nullptr) return;
  const struct mallinfo2 seen = glibc_info();
  told.unit = ToldUnit::kChunk;
  // Blocks in thread caches count as in use.
  say(told, kToldCurrent, told.current_bytes, seen.uordblks + seen.hblkhd, false);
  say(told, kToldCommitted, told.committed_bytes, seen.arena + seen.hblkhd, true);
  say(told, kToldFreeCached, told.free_cached_bytes, seen.fordblks, false);
}

int (*jemalloc_control)(const char*, void*, size_t*, void*, size_t);

bool jemalloc_reads(const char* name, uint64_t& into) {
  size_t value = 0;
  size_t bytes = sizeof value;
  if (jemalloc_control(name, &value, &bytes, nullptr, 0) != 0) return false;
  into = value;
  return true;
}

bool refresh_jemalloc() {
  uint64_t epoch = 1;
  size_t bytes = sizeof epoch;
  return jemalloc_control("epoch", &epoch, &bytes, &epoch, sizeof epoch) == 0;
}

bool find_jemalloc(const Object& object) {
  // snmalloc answers to this name too, and refuses everything.
  return object.find(jemalloc_control, "mallctl") && refresh_jemalloc();
}

void ask_jemalloc(Told& told) {
  strcpy(told.name, "jemalloc");
  told.largest_request = largest_in_quarters;
  refresh_jemalloc();
  uint64_t current = 0;
  uint64_t active = 0;
  uint64_t mapped = 0;
  uint64_t retained = 0;
  uint64_t metadata = 0;
  if (jemalloc_reads("stats.allocated", current)) {
    told.unit = ToldUnit::kUsable;
    // Blocks in thread caches count as in use.
    say(told, kToldCurrent, told.current_bytes, current, false);
  }
  if (jemalloc_reads("stats.active", active) && jemalloc_reads("stats.metadata", metadata)) {
    say(told, kToldMetadata, told.metadata_bytes, metadata, true);
    say(told, kToldFreeCached, told.free_cached_bytes, active > current ? active - current : 0, false);
  }
  if (jemalloc_reads("stats.mapped", mapped)) say(told, kToldCommitted, told.committed_bytes, mapped, false);
  if (jemalloc_reads("stats.retained", retained)) {
    say(told, kToldReserved, told.reserved_bytes, mapped + retained, true);
  }
}

int (*tcmalloc_property)(const char*, size_t*);

bool find_tcmalloc(const Object& object) {
  return object.find(tcmalloc_property, "MallocExtension_GetNumericProperty");
}

bool tcmalloc_reads(const char* name, uint64_t& into) {
  size_t value = 0;
  if (tcmalloc_property(name, &value) == 0) return false;
  into = value;
  return true;
}

void ask_tcmalloc(Told& told) {
  strcpy(told.name, "tcmalloc");
  told.largest_request = largest_in_eight_kib;
  uint64_t value = 0;
  if (tcmalloc_reads("generic.current_allocated_bytes", value)) {
    told.unit = ToldUnit::kUsable;
    say(told, kToldCurrent, told.current_bytes, value, true);
  }
  uint64_t unmapped = 0;
  if (tcmalloc_reads("generic.heap_size", value) && tcmalloc_reads("tcmalloc.pageheap_unmapped_bytes", unmapped)) {
    say(told, kToldReserved, told.reserved_bytes, value, true);
    say(told, kToldCommitted, told.committed_bytes, value - unmapped, true);
    if ((told.valid & kToldCurrent) != 0 && value - unmapped > told.current_bytes) {
      say(told, kToldFreeCached, told.free_cached_bytes, value - unmapped - told.current_bytes, false);
    }
  }
  if (tcmalloc_reads("tcmalloc.heap_limit_mb", value) && value != 0) {
    say(told, kToldLimit, told.limit_bytes, value << 20, true);
  }
}

void (*mimalloc_process)(size_t*, size_t*, size_t*, size_t*, size_t*, size_t*, size_t*, size_t*);

bool find_mimalloc(const Object& object) { return object.find(mimalloc_process, "mi_process_info"); }

void ask_mimalloc(Told& told) {
  strcpy(told.name, "mimalloc");
  told.largest_request = largest_in_64_kib;
  size_t commit = 0;
  size_t unused = 0;
  mimalloc_process(&unused, &unused, &unused, &unused, &unused, &commit, &unused, &unused);
  // From the first moment all of the first arena in 2.4, and never less after a purge in 3.
  say(told, kToldCommitted, told.committed_bytes, commit, false);
}

struct SnmallocInfo {
  size_t current;
  size_t peak;
};
void (*snmalloc_info)(SnmallocInfo*);

bool find_snmalloc(const Object& object) {
  return object.find(snmalloc_info, "_Z18get_malloc_info_v1P14malloc_info_v1");
}

void ask_snmalloc(Told& told) {
  strcpy(told.name, "snmalloc");
  told.largest_request = largest_power_of_two;
  SnmallocInfo info = {};
  snmalloc_info(&info);
  told.unit = ToldUnit::kPage;
  say(told, kToldCurrent, told.current_bytes, info.current, false);
  say(told, kToldCommitted, told.committed_bytes, info.current, false);
}

struct DlmallocInfo {
  size_t arena, ordblks, smblks, hblks, hblkhd, usmblks, fsmblks, uordblks, fordblks, keepcost;
};
size_t (*dlmalloc_footprint)();
size_t (*dlmalloc_limit)();
DlmallocInfo (*dlmalloc_info)();

// Its names have a prefix where it is built to live beside another malloc, and none where it is malloc.
bool find_dlmalloc(const Object& object) {
  if (object.find(dlmalloc_footprint, "dlmalloc_footprint")) {
    object.find(dlmalloc_limit, "dlmalloc_footprint_limit");
    object.find(dlmalloc_info, "dlmallinfo");
    return true;
  }
  if (!object.find(dlmalloc_footprint, "malloc_footprint")) return false;
  object.find(dlmalloc_limit, "malloc_footprint_limit");
  object.find(dlmalloc_info, "mallinfo");
  return true;
}

void ask_dlmalloc(Told& told) {
  strcpy(told.name, "dlmalloc");
  told.largest_request = largest_in_dlmalloc;
  say(told, kToldCommitted, told.committed_bytes, dlmalloc_footprint(), true);
  if (dlmalloc_limit != nullptr && dlmalloc_limit() != SIZE_MAX) {
    say(told, kToldLimit, told.limit_bytes, dlmalloc_limit(), true);
  }
  if (dlmalloc_info == nullptr) return;
  const DlmallocInfo seen = dlmalloc_info();
  told.unit = ToldUnit::kChunk;
  say(told, kToldCurrent, told.current_bytes, seen.uordblks, false);
  say(told, kToldFreeCached, told.free_cached_bytes, seen.fordblks, true);
}

void (*forged_tell)(size_t (&)[5]);

bool find_forged(const Object& object) { return object.find(forged_tell, "heapsmith_tell"); }

void ask_forged(Told& told) {
  strcpy(told.name, "heapsmith");
  told.largest_request = largest_by_pages;
  size_t figures[5] = {};
  forged_tell(figures);
  told.unit = ToldUnit::kUsable;
  // Blocks in the caches of other threads count as in use.
  say(told, kToldCurrent, told.current_bytes, figures[0], false);
  say(told, kToldCommitted, told.committed_bytes, figures[1], true);
  say(told, kToldReserved, told.reserved_bytes, figures[2], true);
  say(told, kToldMetadata, told.metadata_bytes, figures[3], true);
  say(told, kToldFreeCached, told.free_cached_bytes, figures[4], true);
}

// Those that tell nothing: who they are is all there is to say.
char silent_name[sizeof(Told{}.name)];

bool find_silent(const Object& object) {
  void (*function)() = nullptr;
  const char* slash = strrchr(object.path(), '/');
  const char* name = slash != nullptr ? slash + 1 : object.path();
  if (object.find(function, "__TBB_malloc_proxy") || object.find(function, "scalable_malloc")) name = "tbb";
  if (strncmp(name, "ld-musl", 7) == 0 || strncmp(name, "libc.musl", 9) == 0) name = "musl";
  // Its preload library leaves the statistics out.
  if (strncmp(name, "libsnmalloc", 11) == 0) name = "snmalloc";
  strncpy(silent_name, name, sizeof silent_name - 1);
  return true;
}

void ask_silent(Told& told) {
  memcpy(told.name, silent_name, sizeof told.name);
  told.largest_request = strcmp(silent_name, "musl") == 0 ? largest_by_pages : largest_power_of_two;
}

struct Adapter {
  bool (*find)(const Object&);
  void (*ask)(Told&);
};
constexpr Adapter kAdapters[] = {
    {find_forged, ask_forged},     {find_jemalloc, ask_jemalloc}, {find_tcmalloc, ask_tcmalloc},
    {find_mimalloc, ask_mimalloc}, {find_snmalloc, ask_snmalloc}, {find_dlmalloc, ask_dlmalloc},
    {find_glibc, ask_glibc},       {find_silent, ask_silent},
};
const Adapter* found_adapter = nullptr;

const Adapter* find_adapter(const void* malloc_address) {
  const Object object(malloc_address);
  if (!object.is_known()) return nullptr;
  for (const Adapter& adapter : kAdapters) {
    if (adapter.find(object)) return &adapter;
  }
  return nullptr;
}

}  // namespace

Told ask_allocator(const void* malloc_address) {
  Told told;
  const Adapter* adapter = load_acquire(found_adapter);
  if (adapter == nullptr) {
    adapter = find_adapter(malloc_address);
    store_release(found_adapter, adapter);
  }
  if (adapter != nullptr) adapter->ask(told);
  return told;
}

}  // namespace hs
