#include "heap/next.h"

#include <dlfcn.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>

#include "base/atomic.h"
#include "probe/thread.h"

extern "C" const char* gnu_get_libc_version(void) __attribute__((weak));

namespace hs {

constinit NextFunctions NextHeap::next = {NextHeap::first_allocate, NextHeap::first_allocate_zeroed,
                                          NextHeap::first_reallocate, NextHeap::first_deallocate};

namespace {

bool is_found = false;

// Looking up a name may itself allocate, before there is anything to allocate from.
constexpr size_t kEarlyBytes = 64 * 1024;
alignas(16) char early_blocks[kEarlyBytes];
size_t early_used_bytes = 0;
constexpr size_t kEarlyHeaderBytes = 16;

template <class Function>
void find_next(Function& function, const char* name) {
  function = reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
}

struct ObjectSearch {
  uintptr_t address;
  NextFunctions* found;
};

// The range of the loaded object that holds an address, from its own program headers.
int match_object(dl_phdr_info* object, size_t, void* data) {
  auto& search = *static_cast<ObjectSearch*>(data);
  uintptr_t begin = UINTPTR_MAX;
  uintptr_t end = 0;
  bool holds = false;
  for (int number = 0; number < object->dlpi_phnum; ++number) {
    const ElfW(Phdr)& header = object->dlpi_phdr[number];
    if (header.p_type != PT_LOAD) continue;
    const uintptr_t from = object->dlpi_addr + header.p_vaddr;
    const uintptr_t to = from + header.p_memsz;
    if (from < begin) begin = from;
    if (to > end) end = to;
    holds = holds || (search.address >= from && search.address < to);
  }
  if (!holds) return 0;
  search.found->code_begin = begin;
  search.found->code_end = end;
  strncpy(search.found->path, object->dlpi_name, sizeof search.found->path - 1);
  return 1;
}

// A name that only glibc's own object can answer, in the object that answers malloc.
bool is_glibc(const NextFunctions& found) {
  const auto address = reinterpret_cast<uintptr_t>(&gnu_get_libc_version);
  return address >= found.code_begin && address < found.code_end;
}

// Another object's function would hand out blocks that the allocator does not know.
template <class Function>
void find_own(const NextFunctions& found, Function& function, const char* name) {
  find_next(function, name);
  const auto address = reinterpret_cast<uintptr_t>(function);
  if (address < found.code_begin || address >= found.code_end) function = nullptr;
}

}  // namespace

// Answers false to the search itself.
bool NextHeap::make_ready() {
  static bool is_finding = false;
  if (HS_LIKELY(load_acquire(is_found))) return true;
  // Before the constructors have run there is one thread: whoever comes here now is the search itself.
  if (is_finding) return false;
  is_finding = true;
  find();
  is_finding = false;
  return true;
}

const NextFunctions& NextHeap::functions() {
  make_ready();
  return next;
}

void* NextHeap::first_allocate(size_t bytes) { return make_ready() ? next.allocate(bytes) : allocate_early(bytes); }

void* NextHeap::first_allocate_zeroed(size_t count, size_t bytes) {
  if (make_ready()) return next.allocate_zeroed(count, bytes);
  size_t whole;
  return __builtin_mul_overflow(count, bytes, &whole) ? nullptr : allocate_early(whole);
}

void* NextHeap::first_reallocate(void* block, size_t bytes) {
  return make_ready() ? next.reallocate(block, bytes) : nullptr;
}

void NextHeap::first_deallocate(void* block) {
  if (make_ready()) next.deallocate(block);
}

void NextHeap::find() {
  NextFunctions found = {};
  find_next(found.allocate_zeroed, "calloc");
  find_next(found.reallocate, "realloc");
  find_next(found.deallocate, "free");
  find_next(found.usable_bytes, "malloc_usable_size");
  find_next(found.allocate, "malloc");
  const auto address = reinterpret_cast<uintptr_t>(found.allocate);
  ObjectSearch search = {address, &found};
  dl_iterate_phdr(match_object, &search);
  found.has_glibc_headers = is_glibc(found);
  find_own(found, found.memalign, "memalign");
  find_own(found, found.aligned_alloc, "aligned_alloc");
  find_own(found, found.posix_memalign, "posix_memalign");
  find_own(found, found.valloc, "valloc");
  find_own(found, found.pvalloc, "pvalloc");
  next = found;
  probe::has_fast_sizes = found.has_glibc_headers;
  store_release(is_found, true);
}

bool NextHeap::is_early(const void* block) {
  const auto* at = static_cast<const char*>(block);
  return at >= early_blocks && at < early_blocks + kEarlyBytes;
}

void* NextHeap::allocate_early(size_t bytes) {
  const size_t rounded_bytes = (bytes + 15) / 16 * 16 + kEarlyHeaderBytes;
  if (rounded_bytes < bytes || rounded_bytes > kEarlyBytes) return nullptr;
  const size_t at = fetch_add_relaxed(early_used_bytes, rounded_bytes);
  if (at + rounded_bytes > kEarlyBytes) return nullptr;
  // The word before the block reads as no small glibc header.
  const size_t header[2] = {bytes, SIZE_MAX};
  static_assert(sizeof header == kEarlyHeaderBytes);
  memcpy(early_blocks + at, header, sizeof header);
  return early_blocks + at + kEarlyHeaderBytes;
}

size_t NextHeap::early_usable_bytes(const void* block) {
  size_t bytes = 0;
  memcpy(&bytes, static_cast<const char*>(block) - kEarlyHeaderBytes, sizeof bytes);
  return bytes;
}

}  // namespace hs
