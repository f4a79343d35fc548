"""The scenarios of the checker: for every rule a small script that goes wrong when the rule is broken.

Each is a function of the header's size, because many of them are about one byte more or less. Its docstring
is the rule, in words that the checker can print. What the papers of the course leave open (a threshold a few
bytes higher, growing in place before mapping, joining neighbours already in ``os_free``) is not probed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from heapsmith.osmem.blocks import MMAP_THRESHOLD_BYTES, PREALLOCATION_BYTES

Lines = Iterable[str]


@dataclass(frozen=True, slots=True)
class Scenario:
    """A script and the rule that it is about.

    Attributes:
        name: Words joined by ``-``; the first says which function or part it is about.
        points: What a library earns for it.
        rule: One sentence.
        script: The text, for a header of so many bytes.
    """

    name: str
    points: int
    rule: str
    script: Callable[[int], str]


SCENARIOS: Final[list[Scenario]] = []
"""All of them, in the order in which a library is usually written."""


def _scenario(points: int) -> Callable[[Callable[[int], Lines]], Callable[[int], Lines]]:
    def add(lines: Callable[[int], Lines]) -> Callable[[int], Lines]:
        rule = " ".join((lines.__doc__ or "").split())
        name = lines.__name__.replace("_", "-")
        SCENARIOS.append(Scenario(name, points, rule, lambda header: "\n".join(lines(header))))
        return lines

    return add


def _fill(header: int, *, leave: int = 0) -> str:
    """Use up what is left of a fresh heap, but for ``leave`` bytes (header included)."""
    return f"rest = malloc {PREALLOCATION_BYTES - header - leave}"


def _holes(sizes: Iterable[int]) -> Lines:
    """Make free blocks of these sizes, each between two used ones."""
    sizes = list(sizes)
    for number, size in enumerate(sizes):
        yield f"hole{number} = malloc {size}"
        yield f"wall{number} = malloc 8"
    for number in range(len(sizes)):
        yield f"free hole{number}"


# ---- malloc: nothing, the first use, alignment ------------------------------------------------------


@_scenario(1)
def malloc_nothing(header: int) -> Lines:
    """os_malloc(0) answers NULL and makes no system call, also before the first use of the heap."""
    yield from ["a = malloc 0", "b = malloc 10", "c = malloc 0", "free b", "free c"]


@_scenario(2)
def malloc_preallocates(header: int) -> Lines:
    """The first request grows the heap by 128 KiB, header included, and gets the beginning of it."""
    yield from ["a = malloc 1000", "free a"]


@_scenario(2)
def malloc_preallocates_once(header: int) -> Lines:
    """The heap is preallocated once: later requests are served from it without a system call."""
    yield "a = malloc 100"
    for number in range(20):
        yield f"b{number} = malloc {number * 200 + 1}"
    yield "free a"
    yield "c = malloc 64"


@_scenario(2)
def malloc_mapped_is_no_first_use(header: int) -> Lines:
    """A mapped block does not count as the first use of the heap."""
    yield from ["a = malloc 300000", "free a", "b = malloc 24", "c = malloc 300000", "free b", "free c"]


@_scenario(2)
def malloc_takes_the_whole_preallocation(header: int) -> Lines:
    """The preallocated block holds any first heap request; a rest too small for a block stays with it."""
    yield f"a = malloc {PREALLOCATION_BYTES - header - 8}"
    yield "b = malloc 8"
    yield "free b"
    yield "free a"


@_scenario(2)
def malloc_aligns(header: int) -> Lines:
    """Sizes are rounded up to 8, so that every payload begins at a multiple of 8."""
    for number, size in enumerate([1, 7, 8, 9, 15, 16, 17, 23, 25, 31, 33, 63, 65, 100, 1001]):
        yield f"a{number} = malloc {size}"


@_scenario(2)
def malloc_threshold(header: int) -> Lines:
    """Header and payload of less than 128 KiB are heap, more is mmap, its length not rounded."""
    yield f"a = malloc {MMAP_THRESHOLD_BYTES - header - 24}"
    yield f"b = malloc {MMAP_THRESHOLD_BYTES + 8}"
    yield f"c = malloc {MMAP_THRESHOLD_BYTES - header - 1000}"
    yield "d = malloc 1000001"
    yield from ["free d", "free c", "free b", "free a"]


@_scenario(2)
def malloc_mapped_stays_apart(header: int) -> Lines:
    """Mapped blocks are never split, merged or reused."""
    yield from ["a = malloc 200000", "b = malloc 500", "c = malloc 150000", "d = malloc 500"]
    yield from [
        "free a",
        "free b",
        "e = malloc 400",
        "f = malloc 150000",
        "free c",
        "free d",
        "g = malloc 900",
    ]


# ---- Reuse, split, no split -------------------------------------------------------------------------


@_scenario(2)
def reuse_same_size(header: int) -> Lines:
    """A freed block is used again for the next request that it fits."""
    yield from [
        "a = malloc 1000",
        "b = malloc 2000",
        "c = malloc 3000",
        "free b",
        "d = malloc 2000",
        "free a",
    ]
    yield from ["e = malloc 1000", "free c", "free d", "free e"]


@_scenario(2)
def reuse_after_everything_was_freed(header: int) -> Lines:
    """When all blocks are free the heap is one block again, and nothing grows."""
    for _ in range(3):
        for number in range(8):
            yield f"a{number} = malloc {3000 + number * 1000}"
        for number in (3, 1, 7, 5, 0, 2, 6, 4):
            yield f"free a{number}"
    yield f"b = malloc {PREALLOCATION_BYTES - header - 64}"


@_scenario(3)
def split_leaves_a_usable_block(header: int) -> Lines:
    """What a block has too much becomes a free block right behind it, and is used by later requests."""
    yield from ["a = malloc 4000", _fill(header, leave=4000 + header), "free a", "b = malloc 1000"]
    yield f"c = malloc {4000 - 1000 - header}"
    yield from ["free b", "d = malloc 400", f"e = malloc {1000 - 400 - header}"]


@_scenario(3)
def split_at_the_smallest_rest(header: int) -> Lines:
    """A rest that holds a header and 8 bytes is split off."""
    yield f"a = malloc {1000 + header + 8}"
    yield from [
        _fill(header, leave=1000 + 2 * header + 8),
        "free a",
        "b = malloc 1000",
        "c = malloc 8",
        "free b",
    ]


@_scenario(3)
def no_split_of_a_small_rest(header: int) -> Lines:
    """A rest that cannot hold a header and a byte of payload stays with the block."""
    for rest in range(0, header + 8, 8):
        yield f"a{rest} = malloc {512 + rest}"
        yield f"wall{rest} = malloc 8"
    used = sum(512 + rest + 8 + 2 * header for rest in range(0, header + 8, 8))
    yield _fill(header, leave=used)
    for rest in range(0, header + 8, 8):
        yield from [f"free a{rest}", f"b{rest} = malloc 512", f"c{rest} = malloc 8", f"free c{rest}"]
    yield f"d = malloc {512 + header}"
    for rest in range(0, header + 8, 8):
        yield from [f"free b{rest}", f"e{rest} = malloc {512 + rest}"]


@_scenario(2)
def no_split_at_the_end_of_the_heap(header: int) -> Lines:
    """A rest as large as a header alone is no block: the heap ends with the used block."""
    yield from [f"a = malloc {PREALLOCATION_BYTES - 2 * header}", "b = malloc 1000", "free b", "free a"]


@_scenario(2)
def split_in_many(header: int) -> Lines:
    """One free block serves many requests, split after split, up to its last byte."""
    size = 40 * (64 + header)
    yield f"a = malloc {size - header}"
    yield from [_fill(header, leave=size), "free a"]
    for number in range(40):
        yield f"b{number} = malloc 64"
    yield "c = malloc 64"


# ---- Best fit ---------------------------------------------------------------------------------------


@_scenario(3)
def best_fit_takes_the_smallest(header: int) -> Lines:
    """The smallest free block that fits is taken, wherever it is in the list."""
    yield from _holes([2000, 600, 1200, 560, 3000])
    yield from ["a = malloc 550", "b = malloc 550", "c = malloc 1100", "d = malloc 1100", "e = malloc 1100"]


@_scenario(2)
def best_fit_looks_at_the_whole_list(header: int) -> Lines:
    """The search does not stop at the first block that fits."""
    yield from _holes([5000, 4000, 3000, 2000, 1000])
    yield from ["a = malloc 900", "b = malloc 1900", "c = malloc 2900", "d = malloc 3900", "e = malloc 4900"]


@_scenario(1)
def best_fit_takes_the_lowest_of_equals(header: int) -> Lines:
    """Of equally good blocks the one with the lowest address is taken."""
    yield from _holes([800, 800, 800])
    yield from ["a = malloc 800", "b = malloc 700", "free a", "c = malloc 800"]


@_scenario(2)
def best_fit_before_the_untouched_rest(header: int) -> Lines:
    """The unused end of the preallocated heap is a free block like any other, only the largest."""
    yield from ["a = malloc 100000", "b = malloc 8", "free a", "c = malloc 20000", "d = malloc 20000"]


# ---- Coalesce ---------------------------------------------------------------------------------------


@_scenario(3)
def coalesce_two(header: int) -> Lines:
    """Two free neighbours serve a request that neither could."""
    yield from ["a = malloc 1000", "b = malloc 1000", "c = malloc 8", _fill(header, leave=2008 + 3 * header)]
    yield from ["free a", "free b", f"d = malloc {2000 + header}"]


@_scenario(3)
def coalesce_in_any_order(header: int) -> Lines:
    """Free neighbours become one block in whatever order they were freed."""
    for number in range(9):
        yield f"a{number} = malloc 500"
    yield _fill(header, leave=9 * (500 + 4 + header) + 8)
    for number in (4, 0, 8, 2, 6, 1, 5, 3):
        yield f"free a{number}"
    yield f"b = malloc {7 * (504 + header) - header}"
    yield f"c = malloc {504}"


@_scenario(2)
def coalesce_stops_at_a_used_block(header: int) -> Lines:
    """Blocks are merged only with neighbours that are free."""
    yield from ["a = malloc 700", "b = malloc 700", "c = malloc 700", "d = malloc 700", "e = malloc 8"]
    yield from [_fill(header, leave=4 * 704 + 8 + 5 * header), "free a", "free b", "free d"]
    yield from [f"f = malloc {3 * 704}", "free c", f"g = malloc {2 * 704 + header}"]


@_scenario(3)
def coalesce_before_the_search(header: int) -> Lines:
    """All free neighbours are merged before a block is chosen, even if a single one would have fitted."""
    yield from ["a = malloc 1000", "b = malloc 1000", "w = malloc 8", "c = malloc 1500", "v = malloc 8"]
    yield from ["free a", "free b", "free c", "d = malloc 1000", "e = malloc 1000"]


@_scenario(2)
def coalesce_then_split(header: int) -> Lines:
    """A merged block that is larger than needed is split again."""
    yield from ["a = malloc 1000", "b = malloc 1000", "c = malloc 1000", "w = malloc 8"]
    yield from [_fill(header, leave=3008 + 4 * header), "free b", "free a", "free c"]
    yield from ["d = malloc 1500", "e = malloc 1000", "f = malloc 300"]


# ---- Growing the heap -------------------------------------------------------------------------------


@_scenario(3)
def expand_the_last_block(header: int) -> Lines:
    """If nothing fits and the last block is free, the heap grows by exactly what that block lacks."""
    yield from [_fill(header, leave=5000 + header), "a = malloc 5000", "free a", "b = malloc 8001", "free b"]
    yield from ["c = malloc 100000", "free c", "d = malloc 100008"]


@_scenario(3)
def expand_after_coalescing(header: int) -> Lines:
    """Free blocks at the end of the heap are merged first, then grown."""
    yield from ["a = malloc 60000", "b = malloc 40000", f"c = malloc {131072 - 100000 - 3 * header}"]
    yield from ["free c", "free b", "d = malloc 90000"]


@_scenario(3)
def append_behind_a_used_block(header: int) -> Lines:
    """If nothing fits and the last block is in use, the heap grows by exactly a header and the payload."""
    yield from [
        _fill(header, leave=16),
        "a = malloc 1",
        "b = malloc 4097",
        "c = malloc 100000",
        "free a",
        "d = malloc 5000",
    ]


# ---- calloc -----------------------------------------------------------------------------------------


@_scenario(1)
def calloc_nothing(header: int) -> Lines:
    """os_calloc answers NULL if either argument is 0, without a system call."""
    yield from ["a = calloc 0 10", "b = calloc 10 0", "c = calloc 0 0", "free a"]


@_scenario(2)
def calloc_preallocates(header: int) -> Lines:
    """The first use of the heap may be a calloc."""
    yield from ["a = calloc 100 2", "b = calloc 3 5", "c = malloc 10", "free a"]


@_scenario(3)
def calloc_threshold(header: int) -> Lines:
    """Header and payload of less than a page come from the heap, of more from mmap."""
    yield f"a = calloc 1 {4096 - header - 56}"
    yield "b = calloc 4080 1"
    yield "c = calloc 100 50"
    yield "d = malloc 5000"
    yield f"e = calloc {4096 - header - 56} 1"
    yield from ["free c", "free b", "free a", "free e"]


@_scenario(3)
def calloc_zeroes_reused_memory(header: int) -> Lines:
    """The memory is zero, also where something else was before."""
    yield from [
        "a = malloc 3000",
        "b = malloc 8",
        "free a",
        "c = calloc 300 10",
        "free c",
        "d = calloc 1 1001",
    ]
    yield from ["e = calloc 7 11", "f = calloc 500 40"]


@_scenario(2)
def calloc_reuses_splits_and_merges(header: int) -> Lines:
    """A calloc reuses, splits, merges and expands as malloc does."""
    yield from ["a = malloc 1500", "b = malloc 1500", "w = malloc 8", _fill(header, leave=3016 + 3 * header)]
    yield from ["free a", "free b", "c = calloc 10 20", "d = calloc 250 10", "free rest", "e = calloc 5 100"]
    yield from [
        f"f = malloc {131072 - 3016 - 3 * header}",
        "g = calloc 2 1000",
        "free g",
        "h = calloc 2 1500",
    ]


# ---- free -------------------------------------------------------------------------------------------


@_scenario(1)
def free_null(header: int) -> Lines:
    """os_free(NULL) does nothing."""
    yield from ["free NULL", "a = malloc 10", "free NULL", "free a"]


@_scenario(2)
def free_never_shrinks_the_heap(header: int) -> Lines:
    """Freed heap memory stays with the process: no brk in os_free."""
    for number in range(4):
        yield f"a{number} = malloc 100000"
    for number in (3, 2, 1, 0):
        yield f"free a{number}"
    yield "b = malloc 100000"


@_scenario(2)
def free_unmaps(header: int) -> Lines:
    """A mapped block goes back to the system, header included."""
    yield from ["a = malloc 200000", "b = malloc 300001", "free a", "c = malloc 200000", "free b", "free c"]


# ---- realloc: in place ------------------------------------------------------------------------------


@_scenario(1)
def realloc_null_is_malloc(header: int) -> Lines:
    """os_realloc(NULL, n) is os_malloc(n), mapped or not."""
    yield from [
        "a = realloc NULL 100",
        "b = realloc NULL 0",
        "c = realloc NULL 200000",
        "d = realloc NULL 5000",
    ]
    yield from ["free a", "free c"]


@_scenario(1)
def realloc_to_nothing_is_free(header: int) -> Lines:
    """os_realloc(p, 0) frees p and answers NULL."""
    yield from [
        "a = malloc 1000",
        "b = malloc 200000",
        "c = realloc a 0",
        "d = realloc b 0",
        "e = malloc 900",
    ]


@_scenario(1)
def realloc_of_a_freed_block(header: int) -> Lines:
    """os_realloc of a block that is free answers NULL and does nothing else."""
    yield from ["a = malloc 1000", "b = malloc 8", "free a", "c = realloc a 2000", "d = realloc a 10"]
    yield "e = malloc 1000"


@_scenario(2)
def realloc_same_size(header: int) -> Lines:
    """A block that is large enough stays where it is."""
    yield from [
        "a = malloc 1001",
        "b = malloc 8",
        "a = realloc a 1001",
        "a = realloc a 1008",
        "a = realloc a 1002",
    ]


@_scenario(3)
def realloc_shrink_splits(header: int) -> Lines:
    """A block that shrinks stays, and what it no longer needs becomes a free block."""
    yield from ["a = malloc 5000", _fill(header, leave=5000 + header), "a = realloc a 1000"]
    yield f"b = malloc {4000 - header}"
    yield f"a = realloc a {1000 - header - 8}"
    yield "c = malloc 8"


@_scenario(2)
def realloc_shrink_without_split(header: int) -> Lines:
    """A block that shrinks by too little keeps its size, and can grow back in place."""
    yield from ["a = malloc 1000", _fill(header, leave=1000 + header), f"a = realloc a {1000 - header}"]
    yield from ["b = malloc 8", "a = realloc a 1000"]


@_scenario(3)
def realloc_grows_the_last_block(header: int) -> Lines:
    """The last block of the heap grows with one brk by exactly what it lacks."""
    yield from ["a = malloc 100", _fill(header, leave=104 + header), "rest = realloc rest 131008"]
    yield from ["b = malloc 1000", "b = realloc b 3001", "b = realloc b 3008", "b = realloc b 90000"]


@_scenario(3)
def realloc_grows_the_last_block_despite_holes(header: int) -> Lines:
    """The last block grows where it is, even if a free block elsewhere would hold it."""
    yield from ["a = malloc 20000", _fill(header, leave=20000 + header), "b = malloc 1000", "free a"]
    yield from ["b = realloc b 5000", "c = malloc 15000"]


@_scenario(3)
def realloc_merges_forward(header: int) -> Lines:
    """A block grows into the free block behind it; what is left over is split off."""
    yield from ["a = malloc 1000", "b = malloc 2000", "w = malloc 8", "free b", "a = realloc a 1500"]
    yield from [f"c = malloc {1500 - header}", "free c", f"a = realloc a {3000 + header}"]


@_scenario(3)
def realloc_merges_one_at_a_time(header: int) -> Lines:
    """Free blocks behind a block are merged one by one, no more of them than needed."""
    yield from ["a = malloc 1000", "b = malloc 1000", "c = malloc 1000", "d = malloc 1000", "w = malloc 8"]
    yield from [_fill(header, leave=4008 + 5 * header), "free d", "free b", "free c"]
    yield from [f"a = realloc a {3000 + 2 * header}", "e = malloc 1000"]


@_scenario(2)
def realloc_stays_merged(header: int) -> Lines:
    """What was merged in vain stays merged: the block that is left behind is the larger one."""
    yield from ["z = malloc 1000", "a = malloc 1000", "b = malloc 1000", "w = malloc 8", "c = malloc 8000"]
    yield from ["v = malloc 8", "free b", "free c", "a = realloc a 5000"]
    # With b still apart, z would swallow a alone and keep the 8 bytes that are too few for a block.
    yield from [f"z = realloc z {2000 + header - 8}", "d = malloc 1008"]


# ---- realloc: moving --------------------------------------------------------------------------------


@_scenario(3)
def realloc_moves_when_it_must(header: int) -> Lines:
    """A block with a used block behind it moves with its content; the old one becomes free."""
    yield from [
        "a = malloc 1000",
        "b = malloc 8",
        "a = realloc a 2000",
        "c = malloc 1000",
        "b = realloc b 50",
    ]
    yield from [
        "w = malloc 8",
        "a = realloc a 9000",
        "a = realloc a 9000",
        "v = malloc 8",
        "a = realloc a 20000",
    ]


@_scenario(3)
def realloc_moves_to_the_best_fit(header: int) -> Lines:
    """A block that moves goes where malloc would put it."""
    yield from ["a = malloc 500", "w = malloc 8", *_holes([4000, 1600, 2000]), "a = realloc a 1600"]
    yield from ["a = realloc a 1900", "b = malloc 1500"]


@_scenario(3)
def realloc_leaves_the_old_payload_alone(header: int) -> Lines:
    """Nothing is written into a payload that realloc leaves behind: the old content can still be compared."""
    yield from ["a = malloc 64", "w = malloc 8", "a = realloc a 4000", "v = malloc 8", "a = realloc a 9000"]
    yield from [
        "u = malloc 8",
        "a = realloc a 200000",
        "b = malloc 3000",
        "x = malloc 8",
        "b = realloc b 6000",
    ]


@_scenario(2)
def realloc_does_not_grow_a_merged_end(header: int) -> Lines:
    """Merging may make a block the last one; it still moves to where there is room."""
    yield from [
        "hole = malloc 6000",
        "wall = malloc 8",
        f"pad = malloc {131072 - 6000 - 8 - 512 - 224 - 5 * header}",
    ]
    yield from ["a = malloc 512", "free hole", "a = realloc a 1500", "b = malloc 700"]


@_scenario(2)
def realloc_heap_to_mapping(header: int) -> Lines:
    """A heap block that grows to 128 KiB moves into a mapping, and its heap memory is free again."""
    yield from ["a = malloc 50000", "b = malloc 8", "a = realloc a 200000", "c = malloc 50000", "free a"]


@_scenario(3)
def realloc_of_a_mapping_moves(header: int) -> Lines:
    """A mapped block always moves, larger or smaller: first the new memory, then munmap."""
    yield from ["a = malloc 200000", "a = realloc a 300000", "a = realloc a 200000", "a = realloc a 200000"]
    yield from ["a = realloc a 1000", "b = calloc 1000 5", "b = realloc b 4000", "b = realloc b 5000"]


# ---- All of it --------------------------------------------------------------------------------------


def random_lines(seed: int, count: int, header: int) -> Lines:
    """Write a random program: small and large sizes, sizes at the thresholds, all four functions.

    Args:
        seed: The same seed, the same program.
        count: How many lines.
        header: The header's size, for sizes around the thresholds.
    """
    rng = random.Random(seed)
    edges = [size - header for size in (131056, 131064, 4040, 4048)] + [131120, 200000, 4096]
    live: list[str] = []

    def size() -> int:
        kind = rng.random()
        if kind < 0.05:
            return rng.choice(edges)
        return rng.randint(1, 100 if kind < 0.35 else 2000 if kind < 0.8 else 30000)

    for number in range(count):
        choice = rng.random()
        name = f"p{number}"
        if choice < 0.40 or not live:
            yield f"{name} = malloc {size()}"
            live.append(name)
        elif choice < 0.48:
            elements = rng.randint(1, 20)
            yield f"{name} = calloc {elements} {max(1, size() // elements)}"
            live.append(name)
        elif choice < 0.75:
            resized = rng.choice(live)
            yield f"{resized} = realloc {resized} {size()}"
        else:
            yield f"free {live.pop(rng.randrange(len(live)))}"


def random_scenario(seed: int, count: int = 120) -> Scenario:
    """Make a scenario of a random program.

    Example:
        >>> random_scenario(7).name
        'random-7'
    """
    rule = f"A random program of {count} calls does what the model does."
    return Scenario(f"random-{seed}", 1, rule, lambda header: "\n".join(random_lines(seed, count, header)))


@_scenario(5)
def all_small(header: int) -> Lines:
    """A long mix of all functions with small blocks."""
    yield from random_lines(7, 300, header)


@_scenario(5)
def all_sizes(header: int) -> Lines:
    """A long mix of all functions, with mapped blocks and blocks at the thresholds."""
    yield from random_lines(2026, 600, header)
