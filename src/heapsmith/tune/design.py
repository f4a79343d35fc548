"""Designs: heaps made for recorded programs, by exact classes, simulation, and what the field of page policies offers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from heapsmith.spec import (
    BoundedCache,
    Explicit,
    FixedCache,
    HeapSpec,
    HugePages,
    OsPages,
    PurgeAfter,
    PurgeAtOnce,
    RemoteBatch,
)
from heapsmith.spec.policies import CachePolicy
from heapsmith.spec.size_classes import PAGE_BYTES, geometric_classes
from heapsmith.tune.capacities import choose_capacities, count_misses
from heapsmith.tune.life import Life
from heapsmith.tune.objective import WEIGHT_OF_RESIDENT, Objective
from heapsmith.tune.simulation import Holding, simulate
from heapsmith.tune.size_classes import SMALL_BYTES, candidate_bytes, fill_gaps, propose, unite, waste_bytes
from heapsmith.units import KiB, MiB, format_bytes

_NUMBERS: Final = (6, 8, 12, 16, 24, 32, 48, 64)
_SAFE_NUMBERS: Final = (8, 16, 32)
_LARGEST_BYTES: Final = 256 * KiB
_MISS_SHARES: Final = (0.01, 0.003, 0.001)
_LEANINGS: Final[Mapping[Objective, tuple[float, ...]]] = {
    "memory": (WEIGHT_OF_RESIDENT["memory"], 0.97),
    "balanced": (WEIGHT_OF_RESIDENT["balanced"],),
    "time": (WEIGHT_OF_RESIDENT["time"], 0.4),
}
"""Weights of resident bytes that designs are drawn for. The objective makes one number of memory and time, the verdict asks
for each by itself: a second design saves memory that the first gives for time."""
# What a simulated step is taken to cost, ns: only which design is the better one depends on it, and replays decide.
_CALL_NS: Final = 12.0
_MISS_NS: Final = 60.0
_FAULT_NS: Final = 250.0
_PURGE_NS: Final = 3000.0


@dataclass(frozen=True)
class Choice:
    """One decision of a design, and what it gained.

    Attributes:
        what: What was chosen, in words.
        why: What speaks for it.
        resident_bytes_peak: Simulated, with this choice and those before it.
        resident_bytes_mean: The same, on average over time.
    """

    what: str
    why: str
    resident_bytes_peak: float
    resident_bytes_mean: float


@dataclass(frozen=True)
class Design:
    """A heap and the reasons for it."""

    spec: HeapSpec
    choices: tuple[Choice, ...]
    simulated: int
    """How many heaps were simulated to find it."""


class Drawing:
    """Draws a heap for the lives of one or more programs.

    Args:
        lives: The programs.
        weights: How much each counts; they need not add up to anything.
        objective: What counts more.
        enough: Asked before each simulation whether time is up.
        tell: Told of each simulation.
    """

    def __init__(
        self,
        lives: Sequence[Life],
        weights: Sequence[float],
        objective: Objective,
        *,
        enough: Callable[[], bool] = lambda: False,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._lives = lives
        self._weights = [weight / sum(weights) for weight in weights]
        self._objective: Objective = objective
        self._weight = WEIGHT_OF_RESIDENT[objective]
        self._enough = enough
        self._tell = tell
        self._simulated = 0
        self._known: dict[HeapSpec, tuple[float, float, float]] = {}

    def weigh_sizes(self) -> NDArray[np.float64]:
        """Weigh small blocks by size: half what is live at the peak, half what is on average, each program its share."""
        total = np.zeros((2, len(candidate_bytes())))
        for life, weight in zip(self._lives, self._weights, strict=True):
            scale = max(each.live_bytes_peak for each in self._lives)
            total += weight * life.at_peak * scale / max(1, life.live_bytes_peak)
            total += weight * life.on_average * scale / max(1.0, life.live_bytes_mean)
        return total / 2

    def simulate(self, spec: HeapSpec) -> tuple[float, float, float]:
        """Simulate a heap on all programs: geometric means of peak, of average, and of seconds as estimated."""
        if spec not in self._known:
            self._tell(f"simulating {spec.name}")
            logs = np.zeros(3)
            for life, weight in zip(self._lives, self._weights, strict=True):
                found = simulate(spec, life)
                self._simulated += 1
                figures = (found.resident_bytes_peak, found.resident_bytes_mean, _estimate_s(found, life))
                logs += weight * np.log(np.maximum(figures, 1e-9))
            peak, mean, seconds = np.exp(logs).tolist()
            self._known[spec] = peak, mean, seconds
        return self._known[spec]

    def cost(self, spec: HeapSpec) -> float:
        """Fold the simulated figures into one, as the objective weighs them, or what is drawn for now."""
        peak, mean, seconds = self.simulate(spec)
        weight = self._weight
        return math.exp(weight * math.log(math.sqrt(peak * mean)) + (1 - weight) * math.log(seconds))

    def draw(self) -> list[Design]:
        """Draw designs, best first: exact classes, the safe union with geometric ones, each with its spans and caches."""
        weights = self.weigh_sizes()
        proposals = propose(weights, heaps=1.0)
        base = self._begin()
        peak, mean, _ = self.simulate(base)
        start = Choice(
            f"geometric classes, 8 per doubling ({len(base.sizes.class_bytes())})", "the start", peak, mean
        )
        exact = self._best_classes(base, [(k, fill_gaps(proposals[k])) for k in _NUMBERS])
        safe = self._best_classes(base, [(k, unite(proposals[k])) for k in _SAFE_NUMBERS])
        designs: dict[HeapSpec, Design] = {}
        for leaning in _LEANINGS[self._objective]:
            self._weight = leaning
            for kind, found in (
                ("those of the recording, and others in its gaps", exact),
                ("with geometric ones besides", safe),
            ):
                if found is None:
                    continue
                spec, classes = found
                why = self._why_classes(classes, weights)
                choices = [start, self._chosen(f"{len(classes)} size classes, {kind}", why, spec)]
                for choose in (
                    self._choose_cache,
                    self._choose_batches,
                    self._choose_purging,
                    self._choose_spans,
                ):
                    spec = choose(spec, choices)
                designs.setdefault(spec, Design(spec, tuple(choices), self._simulated))
        self._weight = WEIGHT_OF_RESIDENT[self._objective]
        drawn = sorted(designs.values(), key=lambda design: self.cost(design.spec))
        return drawn or [Design(base, (start,), self._simulated)]

    def _chosen(self, what: str, why: str, spec: HeapSpec) -> Choice:
        peak, mean, _ = self.simulate(spec)
        return Choice(what, why, peak, mean)

    def _begin(self) -> HeapSpec:
        """Choose where to begin: near the end, for where recordings are long there is no time for many simulations."""
        if self._objective != "memory":
            return HeapSpec(name="tailored")
        return HeapSpec(
            name="tailored",
            cache=BoundedCache(limit_bytes=64 * KiB, magazine_bytes=4 * KiB),
            remote=RemoteBatch(batches=0),
            pages=OsPages() | PurgeAtOnce(threshold_bytes=256 * KiB),
        )

    def _best_classes(
        self, base: HeapSpec, sets: Sequence[tuple[int, Sequence[int]]]
    ) -> tuple[HeapSpec, list[int]] | None:
        best: tuple[float, HeapSpec, list[int]] | None = None
        for _, classes in sets:
            if best is not None and self._enough():
                break
            spec = msgspec.structs.replace(base, sizes=_with_large(classes, [0] * len(classes)))
            cost = self.cost(spec)
            if best is None or cost < best[0] * 0.998:
                best = cost, spec, list(classes)
        return None if best is None else best[1:]

    def _why_classes(self, classes: Sequence[int], weights: NDArray[np.float64]) -> str:
        live = max(float(weights[1].sum()), 1.0)
        mine = waste_bytes(classes, weights) / live
        usual = waste_bytes(geometric_classes(16, SMALL_BYTES, 4), weights) / live
        return f"requests leave {mine:.1%} of small blocks unused; 4 classes per doubling would leave {usual:.1%}"

    def _choose(
        self, spec: HeapSpec, tried: Iterator[tuple[str, HeapSpec]], as_it_was: str
    ) -> tuple[HeapSpec, str]:
        """Choose the best of what is tried, or stay."""
        best, best_cost, best_words = spec, self.cost(spec), as_it_was
        for words, candidate in tried:
            if self._enough():
                break
            cost = self.cost(candidate)
            if cost < best_cost * 0.998:
                best, best_cost, best_words = candidate, cost, words
        return best, best_words

    def _choose_spans(self, spec: HeapSpec, choices: list[Choice]) -> HeapSpec:
        sizes = spec.sizes
        assert isinstance(sizes, Explicit)

        def tried() -> Iterator[tuple[str, HeapSpec]]:
            for words, of_class in self._span_rules(spec):
                span_pages = [of_class(size) if size <= SMALL_BYTES else 0 for size in sizes.class_bytes_list]
                changed = Explicit(sizes.class_bytes_list, tuple(span_pages))
                yield words, msgspec.structs.replace(spec, sizes=changed)

        best, words = self._choose(spec, tried(), "spans as the heap chooses them")
        choices.append(self._chosen(words, "the best of those simulated", best))
        return best

    def _span_rules(self, spec: HeapSpec) -> Iterator[tuple[str, Callable[[int], int]]]:
        live = self._live_by_class(spec)
        for largest in (8, 16, 64):
            yield (
                f"spans of about {format_bytes(largest * KiB)}",
                lambda size, largest=largest: _pages_near(size, largest * KiB),
            )
        for share in (8, 32):
            yield (
                f"spans of a {share}th of what is live in their class, 4 KiB to 64 KiB",
                lambda size, share=share: _pages_near(
                    size, int(min(max(live.get(size, 0) / share, 4 * KiB), 64 * KiB))
                ),
            )

    def _live_by_class(self, spec: HeapSpec) -> dict[int, float]:
        classes = np.array([size for size in spec.sizes.class_bytes() if size <= SMALL_BYTES])
        place = np.searchsorted(classes, candidate_bytes())
        numbers = np.bincount(place, self.weigh_sizes()[0], minlength=len(classes))
        return {int(size): float(size * count) for size, count in zip(classes, numbers, strict=True)}

    def _choose_cache(self, spec: HeapSpec, choices: list[Choice]) -> HeapSpec:
        tried = ((words, msgspec.structs.replace(spec, cache=cache)) for words, cache in self._caches(spec))
        assert isinstance(spec.cache, BoundedCache)
        best, words = self._choose(spec, tried, _caches_of(spec.cache))
        choices.append(self._chosen(words, "fewest trips to the shared heap per byte held back", best))
        return best

    def _caches(self, spec: HeapSpec) -> Iterator[tuple[str, CachePolicy]]:
        classes = spec.sizes.class_bytes()
        life = max(self._lives, key=len)
        misses, used_by = count_misses(life, classes)
        for share in _MISS_SHARES:
            capacities = choose_capacities(classes, misses, used_by, len(life), share)
            held = sum(size * blocks for size, blocks in zip(classes, capacities, strict=True))
            limit = 1 << max(14, min(20, held.bit_length()))
            words = f"thread caches by class, at most {format_bytes(limit)} each: {share:.1%} of the calls go beyond them"
            yield words, FixedCache(capacities, limit)
        for limit, magazine in ((16 * KiB, KiB), (64 * KiB, 4 * KiB), (2 * MiB, 16 * KiB)):
            cache = BoundedCache(limit_bytes=limit, magazine_bytes=magazine)
            yield _caches_of(cache), cache

    def _choose_batches(self, spec: HeapSpec, choices: list[Choice]) -> HeapSpec:
        """Choose how many batches wait between threads; one thread alone has nobody to exchange them with."""
        assert isinstance(spec.remote, RemoteBatch)
        tried = (
            (_waiting(count), msgspec.structs.replace(spec, remote=RemoteBatch(batches=count)))
            for count in (0, 2, 16)
            if count != spec.remote.batches
        )
        best, words = self._choose(spec, tried, _waiting(spec.remote.batches))
        choices.append(self._chosen(words, "the best of those simulated", best))
        return best

    def _choose_purging(self, spec: HeapSpec, choices: list[Choice]) -> HeapSpec:
        """Choose when free pages go back; what huge pages are worth only replays can tell."""
        if self._objective == "time":
            return spec
        tried = (
            (
                _going_back(threshold),
                msgspec.structs.replace(spec, pages=OsPages() | PurgeAtOnce(threshold_bytes=threshold)),
            )
            for threshold in (64 * KiB, 256 * KiB, MiB, 4 * MiB)
        )
        as_it_was = (
            _going_back(256 * KiB) if self._objective == "memory" else "free pages go back as at the start"
        )
        best, words = self._choose(spec, tried, as_it_was)
        choices.append(self._chosen(words, "the best of those simulated", best))
        return best


def _caches_of(cache: BoundedCache) -> str:
    return f"thread caches of {format_bytes(cache.limit_bytes)} at most, {format_bytes(cache.magazine_bytes)} at a time"


def _waiting(batches: int) -> str:
    return (
        f"at most {batches} batches wait for other threads"
        if batches
        else "no batches wait for other threads"
    )


def _going_back(threshold_bytes: int) -> str:
    return f"free pages beyond {format_bytes(threshold_bytes)} go back at once"


def vary_pages(spec: HeapSpec, live_bytes_peak: int, objective: Objective) -> Iterator[tuple[str, HeapSpec]]:
    """Yield a design with other ways of keeping pages, for replays to judge: kept longer, shorter, huge.

    Args:
        spec: The design.
        live_bytes_peak: Of the program: reserves are parts of it.
        objective: What counts more: its variants come first.
    """
    reserve = max(MiB, min(64 * MiB, live_bytes_peak // 8))
    pipes = {
        "free pages go back at once beyond 256 KiB": OsPages() | PurgeAtOnce(threshold_bytes=256 * KiB),
        f"free pages go back at once beyond {format_bytes(reserve)}": OsPages()
        | PurgeAtOnce(threshold_bytes=reserve),
        "free pages are kept for 20 ms, an eighth of what is live": OsPages()
        | PurgeAfter(delay_ms=20, keep_bytes=MiB, keep_share=8),
        "free pages are kept for 1 s, as many as are live": OsPages()
        | PurgeAfter(delay_ms=1000, keep_bytes=4 * MiB, keep_share=1),
        "huge pages from the first on, free ones kept for 1 s": OsPages()
        | HugePages(after_bytes=0)
        | PurgeAfter(delay_ms=1000, keep_bytes=8 * MiB, keep_share=1),
        "huge pages from the first on, free ones kept for 100 ms": OsPages()
        | HugePages(after_bytes=0)
        | PurgeAfter(delay_ms=100, keep_bytes=2 * MiB, keep_share=16),
    }
    ordered = list(pipes.items())
    if objective != "memory":
        ordered.reverse()
    for words, pipe in ordered:
        if pipe != spec.pages:
            yield words, msgspec.structs.replace(spec, pages=pipe)


def _with_large(classes: Sequence[int], span_pages: Sequence[int]) -> Explicit:
    """Add classes of single blocks above the small ones: pages, 8 per doubling, so that they can be cached."""
    large = [size for size in geometric_classes(SMALL_BYTES, _LARGEST_BYTES, 8) if size > SMALL_BYTES]
    return Explicit((*classes, *large), (*span_pages, *([0] * len(large))) if any(span_pages) else ())


def _pages_near(class_bytes: int, span_bytes: int) -> int:
    """Find the pages from about so many bytes on, up to twice as many, that leave the shortest tail."""
    least = max(1, math.ceil(max(span_bytes, 2 * class_bytes) / PAGE_BYTES))
    best = min(range(least, 2 * least + 1), key=lambda pages: ((pages * PAGE_BYTES) % class_bytes) / pages)
    return min(best, 64)


def _estimate_s(found: Holding, life: Life) -> float:
    misses = float(found.missed.sum())
    total_ns = (
        _CALL_NS * len(life) + _MISS_NS * misses + _FAULT_NS * found.page_faults + _PURGE_NS * found.purges
    )
    return total_ns / 1e9
