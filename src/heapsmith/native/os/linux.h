// The only place that talks to the kernel. A heap takes its operating system as a type: tests put one in its
// place that fails whenever they want it to.
#pragma once

#include <limits.h>
#include <linux/futex.h>
#include <linux/mman.h>
#include <sys/mman.h>
#include <time.h>

#include "base/bits.h"
#include "os/system_call.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

namespace hs {

// The smallest unit the kernel maps. 64-bit Arm kernels are built with 4, 16 or 64 KiB: the largest fits them
// all.
#if defined(__aarch64__)
inline constexpr unsigned page_shift = 16;
inline constexpr unsigned address_bits = 48;
#else
inline constexpr unsigned page_shift = 12;
inline constexpr unsigned address_bits = 47;
#endif
inline constexpr size_t page_bytes = size_t{1} << page_shift;
inline constexpr size_t huge_page_bytes = 2_MiB;

struct Linux {
  static void* map(size_t bytes) { return map_at_page(bytes); }
  static bool unmap(void* start, size_t bytes) {
    return system_call(SYS_munmap, as_long(start), static_cast<long>(bytes)) == 0;
  }
  // The pages are gone and read as zero.
  static bool purge(void* start, size_t bytes) { return advise(start, bytes, MADV_DONTNEED); }
  // The kernel may take the pages whenever it wants them: until then they are as they were. Since Linux 4.5.
  static bool purge_lazily(void* start, size_t bytes) { return advise(start, bytes, MADV_FREE); }
  // Of huge pages that were reserved for such use (nr_hugepages), at a multiple of them; nullptr where there are none
  // left. Not overcommitted: a page that was promised is there.
  static void* map_reserved(size_t bytes) {
    constexpr int kTwoMiB = 21 << MAP_HUGE_SHIFT;
    const long result = system_call(SYS_mmap, 0, static_cast<long>(bytes), PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | kTwoMiB, -1, 0);
    return result < 0 && result > -4096 ? nullptr : pointer_to(static_cast<uintptr_t>(result));
  }
  static bool advise_huge_pages(void* start, size_t bytes) { return advise(start, bytes, MADV_HUGEPAGE); }
  static bool populate(void* start, size_t bytes) { return advise(start, bytes, MADV_POPULATE_WRITE); }
  static bool make_inaccessible(void* start, size_t bytes) {
    return system_call(SYS_mprotect, as_long(start), static_cast<long>(bytes), PROT_NONE) == 0;
  }
  static bool make_accessible(void* start, size_t bytes) {
    return system_call(SYS_mprotect, as_long(start), static_cast<long>(bytes), PROT_READ | PROT_WRITE) == 0;
  }
  // Moves pages onto `to`, whose mapping they replace; nothing is copied and `from` is unmapped.
  static bool move(void* from, size_t bytes, void* to) {
    const long result = system_call(SYS_mremap, as_long(from), static_cast<long>(bytes), static_cast<long>(bytes),
                                    MREMAP_MAYMOVE | MREMAP_FIXED, as_long(to));
    return result == as_long(to);
  }
  // The same, and `from` stays mapped and reads as zero. Since Linux 5.7.
  static bool move_out(void* from, size_t bytes, void* to) {
    const long result = system_call(SYS_mremap, as_long(from), static_cast<long>(bytes), static_cast<long>(bytes),
                                    MREMAP_MAYMOVE | MREMAP_FIXED | 4 /* MREMAP_DONTUNMAP */, as_long(to));
    return result == as_long(to);
  }
  static void wait(const uint32_t* word, uint32_t while_equal) {
    system_call(SYS_futex, as_long(word), FUTEX_WAIT_PRIVATE, static_cast<long>(while_equal));
  }
  static void wake_one(const uint32_t* word) { system_call(SYS_futex, as_long(word), FUTEX_WAKE_PRIVATE, 1); }
  // As the kernel has it; the thread may have been named after it began.
  static void thread_name(char (&name)[16]) {
    if (system_call(SYS_prctl, 16 /* PR_GET_NAME */, as_long(name)) != 0) name[0] = 0;
  }
  // Coarse: a quarter of the price of the exact clock, and good to a few milliseconds.
  static uint64_t now_ms() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return static_cast<uint64_t>(now.tv_sec) * 1000 + static_cast<uint64_t>(now.tv_nsec) / 1000000;
  }

 private:
  static long as_long(const void* pointer) { return static_cast<long>(address_of(pointer)); }
  static bool advise(void* start, size_t bytes, int advice) {
    return system_call(SYS_madvise, as_long(start), static_cast<long>(bytes), advice) == 0;
  }
  // At a multiple of our own page, which may be larger than the kernel's.
  static void* map_at_page(size_t bytes) {
    void* start = map_anywhere(bytes);
    if (page_shift == 12 || start == nullptr || address_of(start) % page_bytes == 0) return start;
    unmap(start, bytes);
    start = map_anywhere(bytes + page_bytes);
    if (start == nullptr) return nullptr;
    const uintptr_t aligned = round_up(address_of(start), page_bytes);
    const size_t before = aligned - address_of(start);
    if (before > 0) unmap(start, before);
    if (before < page_bytes) unmap(pointer_to(aligned + bytes), page_bytes - before);
    return pointer_to(aligned);
  }
  static void* map_anywhere(size_t bytes) {
    const long result = system_call(SYS_mmap, 0, static_cast<long>(bytes), PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return result < 0 && result > -4096 ? nullptr : pointer_to(static_cast<uintptr_t>(result));
  }
};

template <class T>
concept OperatingSystem = requires(void* start, size_t bytes, const uint32_t* word, uint32_t value) {
  { T::map(bytes) };
  { T::unmap(start, bytes) };
  { T::purge(start, bytes) };
  { T::move(start, bytes, start) };
  { T::wait(word, value) };
  { T::now_ms() };
};
static_assert(OperatingSystem<Linux>);

}  // namespace hs
