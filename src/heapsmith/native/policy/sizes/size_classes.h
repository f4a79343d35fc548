// From a list of classes to what the hot path needs: a lookup from requested bytes to class index, the bytes
// of a class, and the shape of its spans. Class index 0 is "no class": a page of a large block, or not ours
// at all.
#pragma once

#include "base/bits.h"
#include "os/linux.h"
#include "policy/concepts.h"
#include "policy/sizes/for_threads.h"

namespace hs {

// The class sets of a heap: everybody's, then those of particular threads.
template <Sizes Policy>
struct ClassSets {
  static constexpr unsigned set_count = 1;
  static constexpr unsigned own_class_count = 0;
  static constexpr const char* names[] = {""};
  template <class Visitor>
  static constexpr void visit(Visitor) {}
};
template <Sizes Everybody, class... Threads>
struct ClassSets<ForThreads<Everybody, Threads...>> {
  static constexpr unsigned set_count = 1 + sizeof...(Threads);
  static constexpr unsigned own_class_count = (0 + ... + Threads::Policy::classes.class_count);
  static constexpr const char* names[] = {"", Threads::name...};
  // Shows each set's classes, in order.
  template <class Visitor>
  static constexpr void visit(Visitor visitor) {
    (visitor(Threads::Policy::classes), ...);
  }
};

// Whether a policy makes exactly these classes: what Python promised is compared with what C++ computed.
template <Sizes Policy, size_t count>
constexpr bool same_classes(const uint32_t (&promised_bytes)[count]) {
  if (count != Policy::classes.class_count) return false;
  for (size_t i = 0; i < count; i++)
    if (promised_bytes[i] != Policy::classes.bytes[i]) return false;
  return true;
}

template <Sizes Policy, size_t smallest_span_bytes = 16_KiB>
struct SizeClasses {
  static constexpr unsigned count = Policy::classes.class_count;
  using Sets = ClassSets<Policy>;
  static constexpr unsigned set_count = Sets::set_count;
  static constexpr unsigned index_count = 1 + count + Sets::own_class_count;
  static constexpr size_t largest_bytes = Policy::classes.bytes[count - 1];
  static_assert(index_count <= 255, "a class index is one byte");

  struct Shape {
    uint32_t class_bytes;
    uint32_t span_pages;
    uint32_t span_blocks;
  };

  // Small requests have a table of their own, at the grain of malloc's alignment: it stays within a few cache
  // lines.
  static constexpr size_t fine_grain = 16;
  static constexpr size_t fine_bytes = smaller_of(1024, round_up(largest_bytes, fine_grain));
  static constexpr size_t coarse_grain = [] {
    size_t grain = fine_bytes;
    for (unsigned i = 0; i < count; i++)
      if (Policy::classes.bytes[i] > fine_bytes) grain = greatest_common_divisor(grain, Policy::classes.bytes[i]);
    return grain;
  }();
  static constexpr unsigned coarse_shift = log2_floor(coarse_grain & (~coarse_grain + 1));

  template <size_t entries>
  struct Lookup {
    uint8_t index[entries];
  };
  template <size_t entries, unsigned shift>
  static constexpr Lookup<entries> make_lookup() {
    Lookup<entries> lookup{};
    unsigned index = 0;
    for (size_t entry = 0; entry < entries; entry++) {
      while (index + 1 < count && Policy::classes.bytes[index] < entry << shift) index++;
      lookup.index[entry] = static_cast<uint8_t>(index + 1);
    }
    return lookup;
  }
  static constexpr auto fine = make_lookup<fine_bytes / fine_grain + 1, 4>();
  static constexpr auto coarse = make_lookup<(largest_bytes >> coarse_shift) + 1, coarse_shift>();

  // Precondition: requested_bytes <= largest_bytes.
  HS_FAST_PATH static unsigned class_of(size_t requested_bytes) {
    if (HS_LIKELY(requested_bytes <= fine_bytes)) return fine.index[(requested_bytes + fine_grain - 1) / fine_grain];
    return coarse.index[(requested_bytes + (size_t{1} << coarse_shift) - 1) >> coarse_shift];
  }

  // The smallest run of pages whose tail wastes at most a 32nd, with a handful of blocks where they are
  // small: blocks of one span are freed together, and a small span is free sooner. Above 32 KiB a span is one
  // block.
  static constexpr Shape shape_of_class(size_t class_bytes, size_t chosen_pages = 0) {
    if (class_bytes > 32_KiB) {
      const size_t pages = divide_up(class_bytes, page_bytes);
      return {static_cast<uint32_t>(class_bytes), static_cast<uint32_t>(pages), 1};
    }
    if (chosen_pages * page_bytes >= class_bytes)
      return {static_cast<uint32_t>(class_bytes), static_cast<uint32_t>(chosen_pages),
              static_cast<uint32_t>(chosen_pages * page_bytes / class_bytes)};
    const size_t least_blocks = class_bytes <= 1_KiB ? 8 : class_bytes <= 8_KiB ? 4 : 2;
    const size_t first = divide_up(larger_of(smallest_span_bytes, least_blocks * class_bytes), page_bytes);
    const size_t last = larger_of(first, 2 * first < 16 ? 16 : 2 * first);
    size_t best = first;
    size_t best_waste = first * page_bytes;
    for (size_t pages = first; pages <= last; pages++) {
      const size_t waste = (pages * page_bytes % class_bytes) * first / pages;
      if (waste < best_waste) {
        best = pages;
        best_waste = waste;
      }
      if (pages * page_bytes % class_bytes * 32 <= pages * page_bytes) {
        best = pages;
        break;
      }
    }
    return {static_cast<uint32_t>(class_bytes), static_cast<uint32_t>(best),
            static_cast<uint32_t>(best * page_bytes / class_bytes)};
  }
  struct Shapes {
    Shape of[index_count];
  };
  static constexpr Shapes shapes = [] {
    Shapes made{};
    for (unsigned i = 0; i < count; i++)
      made.of[i + 1] = shape_of_class(Policy::classes.bytes[i], Policy::classes.span_pages[i]);
    unsigned index = count + 1;
    Sets::visit([&](const auto& classes) {
      for (unsigned i = 0; i < classes.class_count; i++) made.of[index++] = shape_of_class(classes.bytes[i]);
    });
    return made;
  }();

  // From everybody's class to that of a set which holds as much; to itself where the set has none so large.
  struct Translations {
    uint8_t of[set_count][count + 1];
  };
  static constexpr Translations translations = [] {
    Translations made{};
    for (unsigned index = 0; index <= count; index++) made.of[0][index] = static_cast<uint8_t>(index);
    unsigned set = 1, first = count + 1;
    Sets::visit([&](const auto& classes) {
      for (unsigned index = 0; index <= count; index++) {
        made.of[set][index] = static_cast<uint8_t>(index);
        for (unsigned i = classes.class_count; index > 0 && i-- > 0;)
          if (classes.bytes[i] >= shapes.of[index].class_bytes) made.of[set][index] = static_cast<uint8_t>(first + i);
      }
      first += classes.class_count;
      set++;
    });
    return made;
  }();

  // What every block is aligned to.
  static constexpr size_t guaranteed_alignment = [] {
    for (unsigned index = 1; index < index_count; index++)
      if (shapes.of[index].class_bytes % 16 != 0) return size_t{8};
    return size_t{16};
  }();

  HS_FAST_PATH static size_t bytes_of(unsigned index) { return shapes.of[index].class_bytes; }

  // The first class from that of `requested_bytes` on whose blocks all lie at multiples of `alignment`, or 0.
  // Spans start on a page, so a class that is a multiple of an alignment up to a page keeps it.
  static unsigned class_of_aligned(size_t alignment, size_t requested_bytes) {
    if (alignment > page_bytes || requested_bytes > largest_bytes) return 0;
    for (unsigned index = class_of(requested_bytes); index <= count; index++) {
      const size_t class_bytes = bytes_of(index);
      if ((class_bytes & (alignment - 1)) == 0) return index;
      if (class_bytes > 4 * larger_of(requested_bytes, alignment)) break;
    }
    return 0;
  }

  static_assert(
      [] {
        for (unsigned i = 0; i < count; i++) {
          if (Policy::classes.bytes[i] == 0 || Policy::classes.bytes[i] % 8 != 0) return false;
          if (i > 0 && Policy::classes.bytes[i] <= Policy::classes.bytes[i - 1]) return false;
        }
        return true;
      }(),
      "size classes are multiples of 8, smallest first, each once");
};

}  // namespace hs
