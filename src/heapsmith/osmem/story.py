"""A run told in words: for each line of a script what happened in the heap, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from heapsmith.osmem.blocks import Block, Event, EventKind, Step
from heapsmith.osmem.measures import Measures, measure
from heapsmith.osmem.model import Fit
from heapsmith.osmem.script import Played
from heapsmith.osmem.trace_text import Labels, format_calls
from heapsmith.units import format_bytes, format_count

_CHOSEN_BECAUSE: Final[dict[Fit, str]] = {
    "best": "the smallest that is large enough (best fit)",
    "first": "the first that is large enough (first fit)",
    "next": "the next that is large enough, from where the last search ended (next fit)",
    "worst": "the largest (worst fit)",
}


@dataclass(frozen=True, slots=True)
class Scene:
    """One step of a run, ready to be shown.

    Attributes:
        number: From 1.
        played: The line and what it did.
        before: The blocks on the heap before it.
        mappings_before: The mapped blocks before it.
        names: What live blocks are called, by their owner (the call that made them), before and after the
            line.
        headline: The outcome in a few words.
        sentences: What happened, in order, with reasons.
        trace: The call and its system calls, as the checker prints them.
        measures: The heap after the line, in figures.
        system_calls_so_far: How many were made up to here.
    """

    number: int
    played: Played
    before: tuple[Block, ...]
    mappings_before: tuple[Block, ...]
    names: Mapping[int, str]
    headline: str
    sentences: tuple[str, ...]
    trace: tuple[str, ...]
    measures: Measures
    system_calls_so_far: int

    @property
    def step(self) -> Step:
        """What the model did."""
        return self.played.step

    def name_of(self, block: Block) -> str:
        """Name a live block: by the script's name for it, else by the line that made it."""
        return "" if block.owner is None else self.names.get(block.owner, f"#{block.owner + 1}")


def tell(run: Sequence[Played], fit: Fit = "best") -> list[Scene]:
    r"""Turn a played script into scenes.

    Args:
        run: What ``play`` returned, from a fresh model.
        fit: The model's, for the words.

    Example:
        >>> from heapsmith.osmem import Model, parse_script, play
        >>> script = parse_script("p = malloc 1000\nq = malloc 8\nr = realloc p 2000")
        >>> tell(play(script, Model()))[-1].headline
        'r moved: q is in the way'
    """
    scenes: list[Scene] = []
    labels = Labels()
    before: tuple[Block, ...] = ()
    mappings_before: tuple[Block, ...] = ()
    names: dict[int, str] = {}
    system_calls = 0
    for index, played in enumerate(run):
        # A name that now stands for something else is taken from the block that had it, unless that is the very
        # block that this line moves.
        names = {
            owner: name
            if played.names.get(name, owner) == owner or owner == played.source
            else f"#{owner + 1}"
            for owner, name in names.items()
        } | {owner: name for name, owner in played.names.items()}
        step = played.step
        system_calls += len(step.system_calls)
        teller = _Teller(played, index, before, mappings_before, names, fit)
        scenes.append(
            Scene(
                number=index + 1,
                played=played,
                before=before,
                mappings_before=mappings_before,
                names=names,
                headline=teller.headline(),
                sentences=tuple(teller.sentences()),
                trace=tuple(format_calls([step], labels)),
                measures=measure(step),
                system_calls_so_far=system_calls,
            )
        )
        before, mappings_before = step.heap, step.mappings
    return scenes


class _Teller:
    """The words for one line."""

    def __init__(
        self,
        played: Played,
        index: int,
        before: tuple[Block, ...],
        mappings_before: tuple[Block, ...],
        names: Mapping[int, str],
        fit: Fit,
    ) -> None:
        self.step = played.step
        self.operation = played.operation
        self.names = names
        self.fit: Fit = fit
        self.mappings_before = mappings_before
        self.kinds = {event.kind for event in self.step.events}
        self.blocks = {block.address: block for block in (*before, *mappings_before)}
        self.blocks |= {block.address: block for block in (*self.step.heap, *self.step.mappings)}
        pointer = self.operation.pointer.text if self.operation.pointer else ""
        self.subject = (
            names.get(index) or self.operation.target or pointer or f"the block of line {self.operation.line}"
        )

    def _name_at(self, address: int | None) -> str:
        block = self.blocks.get(address or 0)
        if block is None or block.owner is None:
            return "a block"
        return self.names.get(block.owner, f"the block of call {block.owner + 1}")

    def headline(self) -> str:
        """Say how it ended in a few words."""
        step, subject, kinds = self.step, self.subject, self.kinds
        if "refused" in kinds and not step.pointer:
            return "no memory: the answer is NULL"
        if step.function == "os_free" or (
            step.function == "os_realloc" and not step.arguments[1] and step.arguments[0]
        ):
            gone = self.operation.pointer.text if self.operation.pointer else subject
            if "unmapped" in kinds:
                return f"{gone} is freed: its mapping goes back to the system"
            return (
                f"{gone} is freed: its block stays, ready for reuse"
                if "freed" in kinds
                else "nothing to free"
            )
        if not step.pointer:
            return "the answer is NULL"
        if "copied" in kinds:
            return f"{subject} moved: {self._moved_because()}"
        if step.function == "os_realloc" and "searched" not in kinds and "mapped" not in kinds:
            if "grown" in kinds:
                return f"{subject} grew in place: it is the last block, so the heap itself grew"
            if "merged" in kinds:
                return f"{subject} grew in place: it swallowed the free block behind it"
            return f"{subject} stays where it is" + (", cut down to size" if "split" in kinds else "")
        if "mapped" in kinds:
            return f"{subject} is large: it gets a mapping of its own"
        if "preallocated" in kinds:
            return f"first use of the heap: {subject} gets its beginning"
        if "appended" in kinds:
            return f"nothing fits: the heap grows, and {subject} is appended"
        if "grown" in kinds:
            return f"nothing fits: the last free block grows until {subject} fits"
        return f"{subject} takes a free block" + (", the rest is split off" if "split" in kinds else "")

    def _moved_because(self) -> str:
        blocked = self.step.happened("blocked")[0]
        if blocked.other is not None:
            behind = self.blocks.get(blocked.other)
            if behind is not None and behind.status == "allocated":
                return f"{self._name_at(blocked.other)} is in the way"
            return "it may not join its free neighbour"
        if blocked.address in {block.address for block in self.mappings_before}:
            return "a mapped block always does"
        if "behind it" in blocked.reason:
            return "even with the free block behind it there was not enough room"
        return blocked.reason

    def sentences(self) -> Iterator[str]:
        """Tell every event, in order."""
        merged_free: list[Event] = []
        for event in self.step.events:
            if event.kind == "merged" and not self._is_live_before(event.address):
                merged_free.append(event)
                continue
            if merged_free:
                yield self._joined(merged_free)
                merged_free = []
            if sentence := self._sentence(event):
                yield sentence
        if merged_free:
            yield self._joined(merged_free)
        if not self.step.events:
            yield self._nothing_happened()

    def _place_of(self, kind: EventKind) -> int:
        kinds = [event.kind for event in self.step.events]
        return kinds.index(kind) if kind in kinds else len(kinds)

    def _is_live_before(self, address: int | None) -> bool:
        return self.step.function == "os_realloc" and address == self._old_address()

    def _old_address(self) -> int:
        header_bytes = next(iter(self.blocks.values())).header_bytes if self.blocks else 0
        return self.step.arguments[0] - header_bytes

    def _joined(self, events: list[Event]) -> str:
        if self.step.events.index(events[0]) > self._place_of("freed"):
            return "The block that was freed was joined with its free neighbours at once."
        if len(events) == 1:
            return "Two free blocks lay side by side: before the search they were joined into one."
        if len({event.address for event in events}) == 1:
            return f"Before the search, {len(events) + 1} free blocks side by side were joined into one."
        return f"Before the search, free neighbours were joined, {len(events)} times in all."

    def _sentence(self, event: Event) -> str:
        bytes_text = f"{format_count(event.bytes)} bytes"
        match event.kind:
            case "preallocated":
                return (
                    f"The heap is used for the first time. One brk makes it {format_bytes(event.bytes)}: "
                    "much more than is needed now, so that later requests need no system call."
                )
            case "merged":
                return (
                    f"The block behind it is free: its header and payload, {bytes_text}, "
                    f"were joined to {self._pointer()}."
                )
            case "searched" if event.address is None:
                wanted = f"{bytes_text}{self._rounded(event.bytes)}"
                return f"No free block has room for {wanted}: {self._looked_at(event)}."
            case "searched":
                return f"{self._looked_at(event).capitalize()} for {bytes_text}{self._rounded(event.bytes)}."
            case "taken" if "searched" in self.kinds and not self.kinds & {"appended", "grown"}:
                return f"The free block of {bytes_text} was chosen: {_CHOSEN_BECAUSE[self.fit]}."
            case "split":
                return (
                    f"That is more than is needed: it keeps {bytes_text}, "
                    "and the rest gets a header and becomes a free block."
                )
            case "unsplit":
                return (
                    f"{bytes_text} are left over, too few for a header and a payload: "
                    "they stay with the block as slack."
                )
            case "grown":
                return f"One brk made the last block {bytes_text} larger, exactly what it lacked."
            case "appended":
                return f"The last block is in use, so one brk added {bytes_text}: a header and the payload."
            case "mapped":
                return f"With its header it needs {bytes_text}: too many for the heap, so mmap provides them."
            case "unmapped":
                return f"munmap returned {bytes_text} to the system."
            case "freed" if "copied" not in self.kinds:
                return (
                    "Only its header changed: it now says “free”. "
                    "The heap never shrinks, so no system call was made."
                )
            case "freed":
                return "The old block was freed; its memory stays in the heap."
            case "copied":
                return f"{bytes_text[0].upper()}{bytes_text[1:]} of content were copied to the new place."
            case "blocked":
                return self._blocked(event)
            case "refused":
                return f"The system has no {bytes_text} more to give."
            case "kept":
                return f"{self._pointer()} has room enough already."
            case _:
                return ""

    def _rounded(self, size_bytes: int) -> str:
        requested = self.step.arguments[-1] * (
            self.step.arguments[0] if self.step.function == "os_calloc" else 1
        )
        return (
            "" if requested == size_bytes else f" ({format_count(requested)}, rounded up to a multiple of 8)"
        )

    def _pointer(self) -> str:
        return self.operation.pointer.text if self.operation.pointer else self.subject

    def _looked_at(self, event: Event) -> str:
        return f"the search looked at {format_count(event.steps)} block{'s' if event.steps != 1 else ''}"

    def _blocked(self, event: Event) -> str:
        reason = event.reason
        if event.other is not None:
            behind = self.blocks.get(event.other)
            if behind is not None and behind.status == "allocated":
                reason = reason.replace(
                    "the block right behind it", f"{self._name_at(event.other)}, right behind it,"
                )
        return f"{self._pointer()} cannot grow where it is: {reason}."

    def _nothing_happened(self) -> str:
        if self.step.function == "os_free":
            return "Freeing NULL does nothing."
        if self.step.function == "os_realloc" and self.step.arguments[0]:
            return "That block is free already, so realloc has nothing to work on and answers NULL."
        return "A request for nothing gets NULL."
