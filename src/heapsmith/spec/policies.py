"""The policies, one class per native header of the same name; a spec puts one into each slot.

Each class knows its own problems, what it costs in words, and how it is said in C++.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import ClassVar, Final

import msgspec

from heapsmith.spec.size_classes import (
    MALLOC_ALIGNMENT,
    PAGE_BYTES,
    geometric_classes,
    power_of_two_classes,
)
from heapsmith.units import KiB, MiB, format_bytes

ADDRESSABLE_BYTES: Final = 1 << 46
MOST_SPAN_PAGES: Final = 64


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What fills a slot: parameters with units in their names, checked together.

    Example:
        >>> PurgeAfter(delay_ms=-1).complaints()
        [('delay_ms', 'is negative', 'use 0 to purge at once, or a delay of some milliseconds')]
    """

    slot: ClassVar[str] = ""
    header: ClassVar[str] = ""

    def complaints(self) -> list[tuple[str, str, str]]:
        """Return (field, what is wrong, what to do) for every parameter that cannot work."""
        return list(self._complaints())

    def _complaints(self) -> Iterator[tuple[str, str, str]]:
        return iter(())

    def cost(self) -> str:
        """Say in a few words what this choice costs and gives."""
        return ""

    def cpp(self) -> str:
        """Write the type that the native core knows this policy by."""
        values = ", ".join(str(value).lower() for value in self._cpp_arguments())
        return f"{type(self).__name__}<{values}>" if values else type(self).__name__

    def _cpp_arguments(self) -> Iterator[object]:
        yield from (getattr(self, name) for name in self.__struct_fields__)


class SizesPolicy(Policy, frozen=True):
    """Slot `sizes`: which block sizes there are."""

    slot: ClassVar[str] = "sizes"

    def class_bytes(self) -> list[int]:
        """Return the bytes of every size class, smallest first."""
        raise NotImplementedError


def _largest_class_complaints(field: str, value: int) -> Iterator[tuple[str, str, str]]:
    if value > MiB:
        yield (
            field,
            f"is {format_bytes(value)}",
            "keep it at 1MiB or below: larger blocks get spans of their own",
        )


class Geometric(SizesPolicy, frozen=True):
    """The same number of classes between each power of two and the next.

    Args:
        smallest_bytes: The first class; a multiple of 16.
        largest_bytes: The last class; larger requests get a span of their own.
        steps_per_doubling: Classes per doubling, a power of two.

    Example:
        >>> Geometric(largest_bytes=128, steps_per_doubling=4).class_bytes()
        [16, 32, 48, 64, 80, 96, 112, 128]
    """

    header: ClassVar[str] = "policy/sizes/geometric.h"
    smallest_bytes: int = 16
    largest_bytes: int = 256 * KiB
    steps_per_doubling: int = 8

    def class_bytes(self) -> list[int]:
        """Return the bytes of every size class, smallest first."""
        return geometric_classes(self.smallest_bytes, self.largest_bytes, self.steps_per_doubling)

    def _complaints(self) -> Iterator[tuple[str, str, str]]:
        if self.smallest_bytes < 16 or self.smallest_bytes % MALLOC_ALIGNMENT:
            yield (
                "smallest_bytes",
                f"is {self.smallest_bytes}",
                "use a multiple of 16: C requires that alignment",
            )
        if self.largest_bytes < self.smallest_bytes:
            yield (
                "largest_bytes",
                f"is below smallest_bytes ({self.smallest_bytes})",
                "make it the larger one",
            )
        if self.largest_bytes % MALLOC_ALIGNMENT:
            yield "largest_bytes", f"is {self.largest_bytes}", "use a multiple of 16"
        yield from _largest_class_complaints("largest_bytes", self.largest_bytes)
        steps = self.steps_per_doubling
        if steps < 1 or steps & (steps - 1) or steps > 64:
            yield "steps_per_doubling", f"is {steps}", "use 1, 2, 4, 8, 16, 32 or 64"
        elif (
            16 <= self.smallest_bytes <= self.largest_bytes <= MiB
            and self.smallest_bytes % 16 == 0
            and len(self.class_bytes()) > 250
        ):
            yield (
                "steps_per_doubling",
                f"makes {len(self.class_bytes())} classes",
                "at most 250 fit: use fewer steps",
            )

    def cost(self) -> str:
        """Say in a few words what this choice costs and gives."""
        share = 100 / self.steps_per_doubling
        return (
            f"{len(self.class_bytes())} classes; at most {share:.3g} % of a block unused above "
            f"{format_bytes(16 * self.steps_per_doubling)}, at most 15 B below"
        )


class PowersOfTwo(SizesPolicy, frozen=True):
    """One class per power of two: blocks aligned to their own size, up to half of each unused.

    Example:
        >>> PowersOfTwo(largest_bytes=64).class_bytes()
        [16, 32, 64]
    """

    header: ClassVar[str] = "policy/sizes/powers_of_two.h"
    smallest_bytes: int = 16
    largest_bytes: int = 32 * KiB

    def class_bytes(self) -> list[int]:
        """Return the bytes of every size class, smallest first."""
        return power_of_two_classes(self.smallest_bytes, self.largest_bytes)

    def _complaints(self) -> Iterator[tuple[str, str, str]]:
        for field in ("smallest_bytes", "largest_bytes"):
            value = getattr(self, field)
            if value < 8 or value & (value - 1):
                yield field, f"is {value}", "use a power of two from 8 on"
        if self.largest_bytes < self.smallest_bytes:
            yield (
                "largest_bytes",
                f"is below smallest_bytes ({self.smallest_bytes})",
                "make it the larger one",
            )
        yield from _largest_class_complaints("largest_bytes", self.largest_bytes)

    def cost(self) -> str:
        """Say in a few words what this choice costs and gives."""
        kept = "" if self.smallest_bytes >= 16 else "; blocks of 8 B are aligned to 8 only"
        return f"{len(self.class_bytes())} classes; up to half of a block unused{kept}"


class Explicit(SizesPolicy, frozen=True):
    """Exactly these classes, for a program whose sizes are known.

    Args:
        class_bytes_list: The classes, smallest first, each a multiple of 8.
        span_pages_list: For each class the pages of its spans, 0: as many as suit its size; empty: that for all.

    Example:
        >>> [field for field, _, _ in Explicit((64, 32, 33)).complaints()]
        ['class_bytes_list', 'class_bytes_list']
    """

    header: ClassVar[str] = "policy/sizes/explicit.h"
    class_bytes_list: tuple[int, ...]
    span_pages_list: tuple[int, ...] = ()

    def class_bytes(self) -> list[int]:
        """Return the bytes of every size class, smallest first."""
        return list(self.class_bytes_list)

    def _cpp_arguments(self) -> Iterator[object]:
        for value, pages in itertools.zip_longest(self.class_bytes_list, self.span_pages_list, fillvalue=0):
            yield f"{value} | uint64_t{{{pages}}} << 32" if pages else value

    def _complaints(self) -> Iterator[tuple[str, str, str]]:
        field, classes = "class_bytes_list", self.class_bytes_list
        if not classes:
            yield field, "is empty", "name at least one class"
            return
        if list(classes) != sorted(set(classes)):
            wrong = next(b for a, b in itertools.pairwise(classes) if b <= a)
            yield field, f"is not in rising order at {wrong}", "sort the classes, each once"
        odd = [value for value in classes if value < 8 or value % 8]
        if odd:
            yield field, f"has {odd[0]}", "use multiples of 8 (of 16 to keep C's alignment)"
        if len(classes) > 250:
            yield field, f"has {len(classes)} classes", "at most 250 fit"
        yield from _largest_class_complaints(field, max(classes))
        pages = self.span_pages_list
        if pages and len(pages) != len(classes):
            yield "span_pages_list", f"has {len(pages)} numbers for {len(classes)} classes", "give one each"
        elif wrong := [value for value in pages if not 0 <= value <= MOST_SPAN_PAGES]:
            yield "span_pages_list", f"has {wrong[0]}", f"use 0 to {MOST_SPAN_PAGES} pages"
        elif pages and any(
            0 < count * PAGE_BYTES < value for value, count in zip(classes, pages, strict=True)
        ):
            yield "span_pages_list", "has a span too small for one block", "give it more pages, or 0"

    def cost(self) -> str:
        """Say in a few words what this choice costs and gives."""
        odd = [value for value in self.class_bytes_list if value % 16]
        gives_up = (
            f"; gives up 16-byte alignment: blocks of {', '.join(map(str, odd[:4]))} B are aligned to 8 only"
            if odd
            else ""
        )
        steps = zip((0, *self.class_bytes_list), self.class_bytes_list, strict=False)
        worst = max((high - low - 1) / high for low, high in steps)
        return (
            f"{len(self.class_bytes_list)} classes; at most {100 * worst:.0f} % of a block unused{gives_up}"
        )


class CachePolicy(Policy, frozen=True):
    """Slot `cache`: how many blocks a thread may hold out of the central heap."""

    slot: ClassVar[str] = "cache"


class BoundedCache(CachePolicy, frozen=True):
    """Thread caching: up to two magazines of free blocks per class and thread, bounded in sum.

    Args:
        limit_bytes: Bound on what one thread holds.
        magazine_bytes: Bytes of a full magazine; blocks change places by magazines.
        magazine_blocks: Blocks of a magazine, at most.
    """

    header: ClassVar[str] = "policy/cache/bounded_cache.h"
    limit_bytes: int = MiB
    magazine_bytes: int = 16 * KiB
    magazine_blocks: int = 256

    def _complaints(self) -> Iterator[tuple[str, str, str]]:
        if self.limit_bytes < KiB:
            yield "limit_bytes", f"is {self.limit_bytes}", "use 1KiB or more, or NoCache for none"
        if self.magazine_bytes < 16:
            yield "magazine_bytes", f"is {self.magazine_bytes}", "use at least one block: 16 or more"
        if not 1 <= self.magazine_blocks <= 65536:
            yield "magazine_blocks", f"is {self.magazine_blocks}", "use 1 to 65536"

    def cost(self) -> str:
        """Say in a few words what this choice costs and gives."""
        return f"at most {format_bytes(self.limit_bytes)} per thread; no lock and no atomic for a thread's own blocks"


class FixedCache(CachePolicy, frozen=True):
    """Thread caching with a capacity in blocks for each size class.

    Args:
        capacity_blocks: Per class, smallest first; the last one holds for all further classes.
        limit_bytes: Bound on what one thread holds.
    """

    header: ClassVar[str] = "policy/cache/fixed_cache.h"
    capacity_blocks: tuple[int, ...]
    limit_bytes: int = 512 * KiB

    def _cpp_arguments(self) -> Iterator[object]:
        yield self.limit_bytes
        yield from self.capacity_blocks

    def _complaints(self) -> Iterator[tuple[str, str, str]]:
        if not self.capacity_blocks:
            yield "capacity_blocks", "is empty", "name at least one capacity"
        if any(not 1 <= blocks <= 65536 for blocks in self.capacity_blocks):
            yield (
                "capacity_blocks",
                "has a capacity that is not 1 to 65536",
                "use NoCache where nothing is to be held",
            )
        if self.limit_bytes < KiB:
            yield "limit_bytes", f"is {self.limit_bytes}", "use 1KiB or more, or NoCache for none"

    def cost(self) -> str:
        """Say in a few words what this choice costs and gives."""
        return f"at most {format_bytes(self.limit_bytes)} per thread, and the capacity of each class"


class NoCache(CachePolicy, frozen=True):
    """Central: every call goes to the central heap under the lock of its size class."""

    header: ClassVar[str] = "policy/cache/no_cache.h"

    def cost(self) -> str:
        """Say in a few words what this choice costs and gives."""
        return "no block held back by any thread; a lock for every call"


class RemotePolicy(Policy, frozen=True):
    """Slot `remote`: what happens to a block freed by a thread that did not allocate it."""

    slot: ClassVar[str] = "remote"


class RemoteBatch(RemotePolicy, frozen=True):
    """Remote frees stay with the freeing thread and go back in batches.

    Args:
        batches: Magazines per class that may wait in the central heap for another thread.
    """

    header: ClassVar[str] = "policy/remote/remote_batch.h"
    batches: int = 64

    def _complaints(self) -> Iterator[tuple[str, str, str]]:
        if not 0 <= self.batches <= 64:
            yield "batches", f"is {self.batches}", "use 0 to 64"

    def cost(self) -> str:
        """Say in a few words what this choice costs and gives."""
        return f"a remote free costs what a local one does; up to {self.batches} magazines per class wait in between"


class RemoteStack(RemotePolicy, frozen=True):
    """Remote frees are pushed, atomically, onto a list of the block's span."""

    header: ClassVar[str] = "policy/remote/remote_stack.h"

    def cost(self) -> str:
        """Say in a few words what this choice costs and gives."""
        return "an atomic operation per remote free; blocks return to their own spans at once"


class PagesPolicy(Policy, frozen=True):
    """Slot `pages`: a source of pages and the stages stacked on it with ``|``."""

    slot: ClassVar[str] = "pages"

    def __or__(self, stage: PagesPolicy | PagePipe) -> PagePipe:
        return PagePipe((self,)) | stage


class PagePipe(msgspec.Struct, frozen=True):
    """A source of pages and its stages, the source first.

    Example:
        >>> (OsPages() | Limit(limit_bytes=64 * MiB) | PurgeOnDemand()).cpp()
        'Pipe<OsPages<>, Limit<67108864>, PurgeOnDemand, AtStart>'
    """

    stages: tuple[PagesPolicy, ...]

    def __or__(self, stage: PagesPolicy | PagePipe) -> PagePipe:
        more = stage.stages if isinstance(stage, PagePipe) else (stage,)
        return PagePipe((*self.stages, *more))

    def cpp(self) -> str:
        """Write the type that the native core knows this pipe by: what a launcher may want comes last."""
        return f"Pipe<{', '.join(stage.cpp() for stage in self.stages)}, AtStart>"


class OsPages(PagesPolicy, frozen=True):
    """Pages from the operating system, in segments: the source of every pipe."""

    header: ClassVar[str] = "policy/pages/os_pages.h"

    def cpp(self) -> str:
        """Write the type that the native core knows this policy by."""
        return "OsPages<>"


class HugePages(PagesPolicy, frozen=True):
    """Segments mapped after the heap has grown beyond `after_bytes` are huge pages.

    Args:
        after_bytes: A smaller heap has none.
        reserved: Those that were reserved for such use (``vm.nr_hugepages``), as long as there are any; else, and
            then, transparent ones.
    """

    header: ClassVar[str] = "policy/pages/huge_pages.h"
    after_bytes: int = 4 * MiB
    reserved: bool = False

    def _complaints(self) -> Iterator[tuple[str, str, str]]:
        if self.after_bytes < 0:
            yield "after_bytes", "is negative", "use 0 for every segment"

    def cost(self) -> str:
        """Say in a few words what this choice costs and gives."""
        kind = "; reserved pages stay taken" if self.reserved else ""
        beyond = format_bytes(self.after_bytes)
        return f"one page fault per 2 MiB instead of 512 beyond {beyond}; up to 2 MiB unfilled{kind}"


class PurgeAfter(PagesPolicy, frozen=True):
    """Free pages stay warm for a while, bounded, and then go back.

    Args:
        delay_ms: After this long a free page goes back, while the program allocates.
        keep_bytes: What may always stay.
        keep_share: And one part in so many of the live bytes; 0 is none.
    """

    header: ClassVar[str] = "policy/pages/purge_after.h"
    delay_ms: int = 500
    keep_bytes: int = 4 * MiB
    keep_share: int = 1

    def _complaints(self) -> Iterator[tuple[str, str, str]]:
        if self.delay_ms < 0:
            yield "delay_ms", "is negative", "use 0 to purge at once, or a delay of some milliseconds"
        if self.keep_bytes < 0:
            yield "keep_bytes", "is negative", "use 0 to keep nothing beyond the share"
        if self.keep_share < 0:
            yield "keep_share", "is negative", "use 0 for no share, 1 for as much as is live, 8 for an eighth"

    def cost(self) -> str:
        """Say in a few words what this choice costs and gives."""
        share = "" if self.keep_share == 0 else f" and 1/{self.keep_share} of live bytes"
        return f"free pages kept up to {self.delay_ms} ms, at most {format_bytes(self.keep_bytes)}{share}"


class PurgeAtOnce(PagesPolicy, frozen=True):
    """Free pages go back as soon as there are more of them than a threshold."""

    header: ClassVar[str] = "policy/pages/purge_at_once.h"
    threshold_bytes: int = 0

    def _complaints(self) -> Iterator[tuple[str, str, str]]:
        if self.threshold_bytes < 0:
            yield "threshold_bytes", "is negative", "use 0 to keep nothing"

    def cost(self) -> str:
        """Say in a few words what this choice costs and gives."""
        return f"at most {format_bytes(self.threshold_bytes)} kept free; a system call for every span beyond"


class PurgeOnDemand(PagesPolicy, frozen=True):
    """Nothing goes back until the program calls ``malloc_trim`` (or ``recycle``)."""

    header: ClassVar[str] = "policy/pages/purge_on_demand.h"

    def cost(self) -> str:
        """Say in a few words what this choice costs and gives."""
        return "no call ever waits for the kernel to take pages; memory stays at its peak until asked for"


class Prefault(PagesPolicy, frozen=True):
    """Pages are populated when they are taken, not when they are first written."""

    header: ClassVar[str] = "policy/pages/prefault.h"

    def cost(self) -> str:
        """Say in a few words what this choice costs and gives."""
        return "no page fault after malloc has returned; pages never written take memory too"


class PurgeLazily(PagesPolicy, frozen=True):
    """Pages that go back are only offered to the kernel (MADV_FREE), which takes them when it wants them."""

    header: ClassVar[str] = "policy/pages/purge_lazily.h"

    def cost(self) -> str:
        """Say in a few words what this choice costs and gives."""
        return "no page fault for what the kernel did not want; purged pages count as resident until it does"


class Limit(PagesPolicy, frozen=True):
    """At most so many bytes of pages; beyond, allocations fail with ENOMEM."""

    header: ClassVar[str] = "policy/pages/limit.h"
    limit_bytes: int

    def _complaints(self) -> Iterator[tuple[str, str, str]]:
        if not 0 < self.limit_bytes < ADDRESSABLE_BYTES:
            yield "limit_bytes", f"is {self.limit_bytes}", "use a positive number of bytes below 64TiB"

    def cost(self) -> str:
        """Say in a few words what this choice costs and gives."""
        return f"never more than {format_bytes(self.limit_bytes)}; free pages go back before a request is refused"


class LockPolicy(Policy, frozen=True):
    """Slot `lock`: guards a class of the central heap, and the page heap."""

    slot: ClassVar[str] = "lock"


class FutexLock(LockPolicy, frozen=True):
    """A short spin, then sleep in the kernel."""

    header: ClassVar[str] = "policy/lock/futex_lock.h"


class SpinLock(LockPolicy, frozen=True):
    """Spins and yields the processor, never sleeps."""

    header: ClassVar[str] = "policy/lock/spin_lock.h"


class NoLock(LockPolicy, frozen=True):
    """Single thread: no lock at all. A second thread ends the program with a message."""

    header: ClassVar[str] = "policy/lock/no_lock.h"

    def cost(self) -> str:
        """Say in a few words what this choice costs and gives."""
        return "for one thread only: a second one ends the program"


class HardeningPolicy(Policy, frozen=True):
    """Slot `hardening`: what the heap looks for, and how it makes mistakes harmless. Several may be put together."""

    slot: ClassVar[str] = "hardening"


class CheckedBlocks(HardeningPolicy, frozen=True):
    """Each block has a sealed header before it and a canary behind it; the other checks stand on it."""

    header: ClassVar[str] = "policy/hardening/checked_blocks.h"

    def cost(self) -> str:
        """Say in a few words what this choice costs and gives."""
        return "17 bytes a block; double, interior and foreign frees and overruns by one byte end the program"


class Quarantine(HardeningPolicy, frozen=True):
    """Freed blocks wait, and leave in random order.

    Args:
        blocks: How many may wait in each of eight shards.
        wait_bytes: And how many bytes.
    """

    header: ClassVar[str] = "policy/hardening/quarantine.h"
    blocks: int = 256
    wait_bytes: int = 256 * KiB

    def _complaints(self) -> Iterator[tuple[str, str, str]]:
        if not 8 <= self.blocks <= 4096:
            yield "blocks", f"is {self.blocks}", "use 8 to 4096"
        if self.wait_bytes < KiB:
            yield "wait_bytes", f"is {self.wait_bytes}", "use 1KiB or more"

    def cost(self) -> str:
        """Say in a few words what this choice costs and gives."""
        return f"up to {format_bytes(8 * self.wait_bytes)} wait; no block is handed out again at once"


class ZeroOnFree(HardeningPolicy, frozen=True):
    """What a block held is gone when it is freed, and looked at again when it is handed out."""

    header: ClassVar[str] = "policy/hardening/zero_on_free.h"

    def cost(self) -> str:
        """Say in a few words what this choice costs and gives."""
        return "every block is written when freed and read when handed out; writes after free end the program"


class GuardPages(HardeningPolicy, frozen=True):
    """An inaccessible page before and behind each large block; the block itself once it is freed."""

    header: ClassVar[str] = "policy/hardening/guard_pages.h"

    def cost(self) -> str:
        """Say in a few words what this choice costs and gives."""
        return "two pages of addresses and four system calls per large block"


class EncodedLinks(HardeningPolicy, frozen=True):
    """The link in a free block is mixed with a secret."""

    header: ClassVar[str] = "policy/links/encoded_links.h"

    def cost(self) -> str:
        """Say in a few words what this choice costs and gives."""
        return "two more instructions per malloc and free; a forged link ends the program"


class MatchedDeallocation(HardeningPolicy, frozen=True):
    """What operator new made goes to its own operator delete, what malloc made to free, in its own size."""

    header: ClassVar[str] = "policy/hardening/matched_deallocation.h"

    def cost(self) -> str:
        """Say in a few words what this choice costs and gives."""
        return "delete for malloc, free for new, delete for new[] and a wrong size end the program"


class RecordedOrigins(HardeningPolicy, frozen=True):
    """Each block knows which thread made it, and from where: the leak file tells."""

    header: ClassVar[str] = "policy/hardening/recorded_origins.h"

    def cost(self) -> str:
        """Say in a few words what this choice costs and gives."""
        return "16 bytes for each block; the leak file tells thread and place"


class RandomFreeLists(HardeningPolicy, frozen=True):
    """Blocks of a fresh page are handed out in an order that differs from run to run."""

    header: ClassVar[str] = "policy/links/random_free_lists.h"


class ForThread(Policy, frozen=True):
    """Slot `threads`: size classes, spans and a central heap of their own for threads of one name.

    Args:
        name: What the kernel calls the thread (at most 15 bytes), or what it says to ``heapsmith_use_heap``.
        class_bytes_list: Its classes, smallest first; larger requests are served as everybody's.

    Example:
        >>> ForThread("worker", (64, 4096)).cpp()
        'ForThread<"worker", Explicit<64, 4096>>'
    """

    slot: ClassVar[str] = "threads"
    header: ClassVar[str] = "policy/sizes/for_threads.h"
    name: str
    class_bytes_list: tuple[int, ...]

    def _cpp_arguments(self) -> Iterator[object]:
        raise NotImplementedError

    def cpp(self) -> str:
        """Write the type that the native core knows this policy by."""
        return f'ForThread<"{self.name}", {Explicit(self.class_bytes_list).cpp()}>'

    def _complaints(self) -> Iterator[tuple[str, str, str]]:
        if not 1 <= len(self.name.encode()) <= 15 or not self.name.isascii() or not self.name.isprintable():
            yield (
                "name",
                f"is {self.name!r}",
                "use 1 to 15 letters: that is what the kernel keeps of a thread's name",
            )
        if '"' in self.name or "\\" in self.name:
            yield "name", f"is {self.name!r}", "leave quotes and backslashes out"
        yield from Explicit(self.class_bytes_list).complaints()

    def cost(self) -> str:
        """Say in a few words what this choice costs and gives."""
        return f"threads named {self.name} share no span with others; one more look in a table per malloc"


def for_thread(name: str, class_bytes_list: Sequence[int]) -> ForThread:
    """Give threads of a name a heap of their own: the words in which it is asked for.

    Example:
        >>> for_thread("worker", [64, 4096]).class_bytes_list
        (64, 4096)
    """
    return ForThread(name, tuple(class_bytes_list))


SIZES: Final = (Geometric, PowersOfTwo, Explicit)
CACHES: Final = (BoundedCache, FixedCache, NoCache)
REMOTES: Final = (RemoteBatch, RemoteStack)
PAGES: Final = (OsPages, HugePages, PurgeAfter, PurgeAtOnce, PurgeOnDemand, PurgeLazily, Prefault, Limit)
LOCKS: Final = (FutexLock, SpinLock, NoLock)
HARDENING: Final = (
    CheckedBlocks,
    Quarantine,
    ZeroOnFree,
    GuardPages,
    MatchedDeallocation,
    RecordedOrigins,
    EncodedLinks,
    RandomFreeLists,
)
POLICIES: Final[tuple[type[Policy], ...]] = (
    *SIZES,
    *CACHES,
    *REMOTES,
    *PAGES,
    *LOCKS,
    *HARDENING,
    ForThread,
)
