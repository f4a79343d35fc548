"""Which policies cost what: the same program on models that differ in one or two rules."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from heapsmith.osmem.blocks import PREALLOCATION_BYTES, Layout
from heapsmith.osmem.measures import measure
from heapsmith.osmem.model import COALESCES, FITS, Coalesce, Fit, Model
from heapsmith.osmem.script import Script, play

_MOST_SAMPLES: Final = 400
_LIVE_BLOCKS: Final = 80


@dataclass(frozen=True, slots=True)
class Policy:
    """One way to run the allocator; the defaults are the rules of the course."""

    fit: Fit = "best"
    coalesce: Coalesce = "before-search"
    split: bool = True
    preallocation_bytes: int = PREALLOCATION_BYTES

    @property
    def name(self) -> str:
        """The policy in words, short enough for a table."""
        words = [f"{self.fit} fit"]
        if self.coalesce != "before-search":
            words.append({"on-free": "coalesce on free", "never": "never coalesce"}[self.coalesce])
        if not self.split:
            words.append("no split")
        if self.preallocation_bytes != PREALLOCATION_BYTES:
            none = not self.preallocation_bytes
            words.append("no preallocation" if none else "other preallocation")
        return ", ".join(words)

    def model(self, layout: Layout = "v1") -> Model:
        """Make a fresh model of it."""
        return Model(
            layout,
            fit=self.fit,
            coalesce=self.coalesce,
            split=self.split,
            preallocation_bytes=self.preallocation_bytes,
        )


RULES: Final = Policy()
"""What libosmem.so does."""

STUDIED: Final[tuple[Policy, ...]] = (
    *(Policy(fit=fit, coalesce=coalesce) for coalesce in COALESCES for fit in FITS),
    Policy(split=False),
    Policy(preallocation_bytes=0),
)
"""All fits under all ways to coalesce; then the course's rules without splitting, or preallocation."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a program cost under a policy.

    Attributes:
        policy: Which.
        system_calls: brk, mmap, munmap.
        heap_bytes_peak: The longest that the heap got: it never shrinks.
        committed_bytes_peak: Heap and mappings together, at the worst moment.
        search_steps: Blocks looked at to find a fit.
        coalesce_steps: Blocks looked at to find free neighbours.
        copied_bytes: Content moved by realloc.
        internal_fragmentation_ratio: Mean over the run.
        external_fragmentation_ratio: Mean over the run.
        scattered_ratio: Mean share of the free memory that lies outside the largest free block.
    """

    policy: Policy
    system_calls: int
    heap_bytes_peak: int
    committed_bytes_peak: int
    search_steps: int
    coalesce_steps: int
    copied_bytes: int
    internal_fragmentation_ratio: float
    external_fragmentation_ratio: float
    scattered_ratio: float


def compute_outcome(script: Script, policy: Policy, layout: Layout = "v1") -> Outcome:
    r"""Run a script under a policy.

    Raises:
        ScriptError: The script cannot be run.

    Example:
        >>> from heapsmith.osmem.script import parse_script
        >>> script = parse_script("p = malloc 10\nfree p\nq = malloc 10")
        >>> compute_outcome(script, RULES).system_calls, compute_outcome(script, RULES).heap_bytes_peak
        (2, 131072)
    """
    model = policy.model(layout)
    run = play(script, model)
    every = max(1, len(run) // _MOST_SAMPLES)
    samples = [measure(played.step) for played in run[every - 1 :: every]]
    count = max(1, len(samples))
    committed = 0
    for played in run:
        if played.step.system_calls or not committed:
            committed = max(committed, measure(played.step).committed_bytes)
    return Outcome(
        policy=policy,
        system_calls=model.tally.system_calls,
        heap_bytes_peak=model.heap_bytes,
        committed_bytes_peak=committed,
        search_steps=model.tally.search_steps,
        coalesce_steps=model.tally.coalesce_steps,
        copied_bytes=model.tally.copied_bytes,
        internal_fragmentation_ratio=sum(m.internal_fragmentation_ratio for m in samples) / count,
        external_fragmentation_ratio=sum(m.external_fragmentation_ratio for m in samples) / count,
        scattered_ratio=sum(m.scattered_ratio for m in samples) / count,
    )


def study(
    script: Script,
    layout: Layout = "v1",
    policies: Sequence[Policy] = STUDIED,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Outcome]:
    """Run a script under many policies.

    Args:
        script: The program.
        layout: The header layout.
        policies: Which.
        on_progress: Told how many are done, and of how many.

    Raises:
        ScriptError: The script cannot be run under one of them.
    """
    outcomes: list[Outcome] = []
    for policy in policies:
        outcomes.append(compute_outcome(script, policy, layout))
        if on_progress is not None:
            on_progress(len(outcomes), len(policies))
    return outcomes


def random_workload(count: int, seed: int = 0) -> str:
    """Write a program with a steady number of live blocks: most small, some large, lifetimes of all kinds.

    Args:
        count: How many calls.
        seed: The same seed, the same program.

    Example:
        >>> len(random_workload(100).splitlines())
        100
    """
    return "\n".join(_workload(random.Random(seed), count))


def _workload(rng: random.Random, count: int) -> Iterable[str]:
    live: list[str] = []
    for number in range(count):
        choice = rng.random()
        allocate = choice < 0.85 * (1.5 - len(live) / _LIVE_BLOCKS) / 1.5 if live else True
        if allocate:
            name = f"p{number}"
            live.append(name)
            yield f"{name} = malloc {_size(rng)}"
        elif choice > 0.92:
            name = rng.choice(live)
            yield f"{name} = realloc {name} {_size(rng)}"
        else:
            # Most blocks die young, a few stay long: what is freed is more often one of the last.
            index = min(len(live) - 1, int(len(live) * rng.betavariate(2, 1)))
            yield f"free {live.pop(index)}"


def _size(rng: random.Random) -> int:
    kind = rng.random()
    if kind < 0.01:
        return rng.randint(131072, 400000)
    if kind < 0.12:
        return rng.randint(4096, 32768)
    return max(1, min(4096, int(rng.lognormvariate(4.8, 1.1))))
