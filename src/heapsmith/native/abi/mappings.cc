// The program's own anonymous mappings. What the allocator itself maps is its business: told by where the call came from.
#include "probe/mappings.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "abi/heap.h"
#include "probe/python.h"

namespace {

using hs::TheHeap;

constexpr int kLeavesTheOld = 4;  // MREMAP_DONTUNMAP, which older headers lack

// The kernel's measure.
size_t whole_pages(size_t bytes) { return (bytes + hs::wire::kPageBytes - 1) & ~(hs::wire::kPageBytes - 1); }

bool is_page(uintptr_t address) { return address % hs::wire::kPageBytes == 0; }

HS_FAST_PATH void* map_and_note(void* wish, size_t bytes, int protection, int flags, int file, int64_t offset,
                                const void* caller) {
  const long answer = syscall(SYS_mmap, wish, bytes, protection, flags, file, offset);
  auto* address = reinterpret_cast<void*>(answer);
  if (HS_UNLIKELY(address == MAP_FAILED) || TheHeap::is_own_code(caller)) return address;
  const auto begin = reinterpret_cast<uintptr_t>(address);
  if ((flags & MAP_ANONYMOUS) != 0 && protection != PROT_NONE) {
    hs::probe::note_map(begin, whole_pages(bytes));
    hs::probe::look_for_python(caller, address, bytes);
  } else if ((flags & MAP_FIXED) != 0) {
    hs::probe::note_unmap(begin, whole_pages(bytes));
  }
  return address;
}

}  // namespace

extern "C" {

HS_EXPORT void* mmap(void* wish, size_t bytes, int protection, int flags, int file, off_t offset) noexcept {
  return map_and_note(wish, bytes, protection, flags, file, offset, __builtin_return_address(0));
}

HS_EXPORT void* mmap64(void* wish, size_t bytes, int protection, int flags, int file, off64_t offset) noexcept {
  return map_and_note(wish, bytes, protection, flags, file, offset, __builtin_return_address(0));
}

HS_EXPORT int munmap(void* address, size_t bytes) noexcept {
  const auto begin = reinterpret_cast<uintptr_t>(address);
  // Before, because another thread may be given these addresses at once; a call that must fail changes nothing.
  const bool changes_something = is_page(begin) && bytes != 0 && whole_pages(bytes) >= bytes;
  if (changes_something && !TheHeap::is_own_code(__builtin_return_address(0))) {
    hs::probe::note_unmap(begin, whole_pages(bytes));
  }
  return static_cast<int>(syscall(SYS_munmap, address, bytes));
}

HS_EXPORT void* mremap(void* address, size_t old_bytes, size_t new_bytes, int flags, ...) noexcept {
  va_list arguments;
  va_start(arguments, flags);
  void* wish = (flags & (MREMAP_FIXED | kLeavesTheOld)) != 0 ? va_arg(arguments, void*) : nullptr;
  va_end(arguments);
  const auto begin = reinterpret_cast<uintptr_t>(address);
  const bool is_programs = !TheHeap::is_own_code(__builtin_return_address(0));
  const bool followed = is_programs && hs::probe::is_mapped(begin, whole_pages(old_bytes));
  const bool leaves = followed && (flags & kLeavesTheOld) == 0;
  // Before, because another thread may be given the old addresses at once.
  if (leaves) hs::probe::note_unmap(begin, whole_pages(old_bytes));
  const long answer = syscall(SYS_mremap, address, old_bytes, new_bytes, flags, wish);
  auto* moved = reinterpret_cast<void*>(answer);
  if (moved == MAP_FAILED) {
    if (leaves) hs::probe::note_map(begin, whole_pages(old_bytes));
  } else if (followed) {
    hs::probe::note_map(reinterpret_cast<uintptr_t>(moved), whole_pages(new_bytes));
  } else if (is_programs && (flags & MREMAP_FIXED) != 0) {
    hs::probe::note_unmap(reinterpret_cast<uintptr_t>(moved), whole_pages(new_bytes));
  }
  return moved;
}

}  // extern "C"
