"""One step as a picture: the whole heap to scale, and below it the blocks, with what happened marked."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final

from heapsmith.osmem.axis import Axis
from heapsmith.osmem.blocks import HEAP_START, Block
from heapsmith.osmem.story import Scene
from heapsmith.show.osmem.shapes import (
    Group,
    Ink,
    Label,
    Path,
    Picture,
    Rect,
    Shape,
    marks_of,
    text_width,
)
from heapsmith.units import format_bytes, format_count

_BAR_HEIGHT: Final = 46.0
_WHOLE_HEIGHT: Final = 9.0
_LANE_HEIGHT: Final = 15.0
_ADDRESS_HEIGHT: Final = 18.0
_CARD_HEIGHT: Final = 34.0
_ARC_HEIGHT: Final = 30.0


@dataclass(slots=True)
class _Note:
    """A word above the blocks, with a leader down to what it is about."""

    text: str
    ink: Ink
    row: int
    start: float
    end: float
    lane: int = 0
    x: float = 0.0


@dataclass(slots=True)
class _Sheet:
    shapes: list[Shape] = field(default_factory=list[Shape])

    def add(self, *shapes: Shape) -> None:
        self.shapes.extend(shapes)

    @contextmanager
    def grouped(self) -> Generator[None]:
        """Make one group of what is added meanwhile."""
        outer, self.shapes = self.shapes, []
        yield
        marks = tuple(marks_of(self.shapes))
        self.shapes = outer
        if marks:
            self.add(Group(marks))


def draw_heap(scene: Scene, axis: Axis, heap_bytes_peak: int, headroom: Sequence[float] = ()) -> Picture:
    """Draw the heap after a step.

    Args:
        scene: The step.
        axis: Where addresses stand; the same for all steps, made for the width that is wanted.
        heap_bytes_peak: The longest that the heap gets in the run: what the bar of the whole heap is to
            scale to.
        headroom: How much room to leave above each row, at least; for pictures that replace each other.
    """
    return _Drawer(scene, axis, heap_bytes_peak, headroom).draw()


def headroom_of(scenes: Sequence[Scene], axis: Axis) -> list[float]:
    """Find how much room each row needs above it so that its blocks stand still from step to step."""
    room = [0.0] * axis.rows
    for scene in scenes:
        for row, needed in enumerate(_Drawer(scene, axis, 1, ()).headroom()):
            room[row] = max(room[row], needed)
    return room


class _Drawer:
    def __init__(self, scene: Scene, axis: Axis, peak_bytes: int, room: Sequence[float]) -> None:
        self.room = room
        self.scene = scene
        self.axis = axis
        self.width = axis.row_units
        self.peak_bytes = max(1, peak_bytes)
        self.heap = scene.step.heap
        self.heap_end = self.heap[-1].end if self.heap else HEAP_START
        self.old = self._block_left()
        self.blocks_in: dict[int, list[Block]] = defaultdict(list)
        for block in self.heap:
            for span in axis.spans(block.address, block.end):
                self.blocks_in[span.row].append(block)
        self.sheet = _Sheet()
        self.bar_tops: list[float] = []
        self.cards: dict[int, tuple[float, float]] = {}  # the middle of the top of each mapped block

    def draw(self) -> Picture:
        y = self._whole_heap(0.0)
        y = self._rows(y + 6) if self.heap else self._no_heap(y + 6)
        y = self._mappings(y)
        self._moves()
        return Picture(self.width, math.ceil(y + 4), tuple(self.sheet.shapes))

    # ---- The whole heap, to scale
    # ---------------------------------------------------------------------------------

    def _whole_heap(self, y: float) -> float:
        heap_bytes = self.heap_end - HEAP_START
        caption = (
            f"the whole heap, {format_bytes(heap_bytes)}, to scale" if heap_bytes else "the heap is empty"
        )
        self.sheet.add(Label(0, y + 10, caption, "muted", 10.5))
        y += 15
        self.sheet.add(Rect(0, y, self.width, _WHOLE_HEIGHT, None, "grid", 1, dashed=True))
        scale = self.width / self.peak_bytes
        for free, run in groupby(self.heap, key=lambda block: block.status == "free"):
            blocks = list(run)
            x, width = (blocks[0].address - HEAP_START) * scale, (blocks[-1].end - blocks[0].address) * scale
            self.sheet.add(Rect(x, y, max(width, 0.6), _WHOLE_HEIGHT, "free" if free else "used"))
        self.sheet.add(Rect(0, y, heap_bytes * scale, _WHOLE_HEIGHT, None, "edge"))
        return y + _WHOLE_HEIGHT

    def _no_heap(self, y: float) -> float:
        self.sheet.add(Label(0, y + 14, "no block yet: nothing was asked of the heap so far", "muted", 12))
        return y + 22

    # ---- The blocks
    # -------------------------------------------------------------------------------------------------

    def _rows_shown(self) -> range:
        return range(self.axis.point(self.heap_end - 1)[0] + 1 if self.heap else 0)

    def headroom(self) -> list[float]:
        """How much room the notes and arrows of this step need above each row."""
        notes = list(self._notes())
        return [
            _arrange([note for note in notes if note.row == row], self.width) * _LANE_HEIGHT
            + self._arc_room(row)
            + 6
            for row in self._rows_shown()
        ]

    def _arc_room(self, row: int) -> float:
        return _ARC_HEIGHT if self._arc_starts_or_ends_in(row) else 0.0

    def _rows(self, y: float) -> float:
        notes = list(self._notes())
        for row in self._rows_shown():
            here = [note for note in notes if note.row == row]
            arcs = self._arc_room(row)
            needed = _arrange(here, self.width) * _LANE_HEIGHT + arcs + 6
            top = y + max(needed, self.room[row] if self.room else 0)
            self.bar_tops.append(top)
            self._row_of_blocks(row, top)
            for note in here:
                self._note(note, top, arcs)
            self._addresses(row, top + _BAR_HEIGHT)
            y = top + _BAR_HEIGHT + _ADDRESS_HEIGHT
        return y

    def _row_of_blocks(self, row: int, top: float) -> None:
        for block in self.blocks_in[row]:
            with self.sheet.grouped():
                self._block(block, row, top)
        self._highlights(row, top)
        with self.sheet.grouped():
            self._tears(row, top)

    def _block(self, block: Block, row: int, top: float) -> None:
        live = block.status != "free"
        parts: list[tuple[int, int, Ink]] = [
            (block.address, block.payload, "header" if live else "free-header")
        ]
        used_end = block.payload + block.requested_bytes if live else block.payload
        if live:
            parts.append((block.payload, used_end, "used"))
        if used_end < block.end:
            parts.append((used_end, block.end, "slack" if live else "free"))
        for start, end, ink in parts:
            for span in self.axis.spans(start, end):
                if span.row == row:
                    title = self._title(block, ink)
                    self.sheet.add(
                        Rect(span.start, top, span.end - span.start, _BAR_HEIGHT, ink, title=title)
                    )
        for span in self.axis.spans(block.address, block.end):
            if span.row == row:
                width = span.end - span.start
                self.sheet.add(Rect(span.start, top, width, _BAR_HEIGHT, None, "edge"))
        self._block_label(block, row, top)

    def _highlights(self, row: int, top: float) -> None:
        """A frame around the block that the call answers, and around one that is in the way."""
        for block in self.blocks_in[row]:
            edge: Ink | None = "new" if block.payload == self.scene.step.pointer else None
            edge = "stop" if self._is_in_the_way(block) else edge
            for span in self.axis.spans(block.address, block.end) if edge else ():
                if span.row == row:
                    self.sheet.add(
                        Rect(span.start, top - 1, span.end - span.start, _BAR_HEIGHT + 2, None, edge, 2.5)
                    )

    def _title(self, block: Block, part: Ink) -> str:
        at = f"at HeapStart + {block.payload - HEAP_START:#x}"
        if part in {"header", "free-header"}:
            return f"header: {block.header_bytes} bytes"
        if block.status == "free":
            return f"free: {format_count(block.size_bytes)} bytes {at}"
        slack = f", {block.slack_bytes} bytes of slack" if block.slack_bytes else ""
        return f"{self.scene.name_of(block)}: {format_count(block.requested_bytes)} bytes {at}{slack}"

    def _block_label(self, block: Block, row: int, top: float) -> None:
        spans = list(self.axis.spans(block.payload, block.end))
        widest = max(spans, key=lambda span: span.end - span.start)
        if widest.row != row:
            return
        room = widest.end - widest.start - 6
        middle = (widest.start + widest.end) / 2
        live = block.status != "free"
        name = self.scene.name_of(block) if live else "free"
        size = format_count(block.requested_bytes if live else block.size_bytes)
        ink: Ink = "used-text" if live else "free-text"
        name_width, size_width = text_width(name, 13, bold=True), text_width(f"{size} B", 10.5)
        name_fits = name_width <= room
        if name_fits and size_width <= room:
            self.sheet.add(Label(middle, top + 21, name, ink, 13, "middle", bold=live))
            self.sheet.add(Label(middle, top + 36, f"{size} B", ink, 10.5, "middle"))
        elif name_fits:
            self.sheet.add(Label(middle, top + 28, name, ink, 13, "middle", bold=live))

    def _tear_places(self, row: int) -> Iterator[float]:
        """Where the pieces of a row that are drawn shorter have their marks."""
        for start, end in self.axis.torn:
            if end <= self.heap_end:
                widest = max(self.axis.spans(start, end), key=lambda span: span.end - span.start)
                if widest.row == row and widest.end - widest.start >= 30:
                    yield widest.start + (widest.end - widest.start) / 2

    def _tears(self, row: int, top: float) -> None:
        for x in self._tear_places(row):
            for y in (top, top + _BAR_HEIGHT):
                left, right = ((x - 5, y + 6), (x + 1, y - 6)), ((x, y + 6), (x + 6, y - 6))
                self.sheet.add(Path((*left, *reversed(right)), None, fill="ground"))
                self.sheet.add(Path(left, "muted", 1.3), Path(right, "muted", 1.3))

    def _addresses(self, row: int, y: float) -> None:
        taken = -10.0
        for block in self.blocks_in[row]:
            at_row, x = self.axis.point(block.payload)
            text = f"{block.payload - HEAP_START:#x}"
            wide = text_width(text, 9.5, mono=True)
            if at_row != row or x - 1 < taken or x + wide > self.width:
                continue
            with self.sheet.grouped():
                self.sheet.add(Path(((x, y), (x, y + 4)), "muted"))
                self.sheet.add(Label(x, y + 13, text, "muted", 9.5, mono=True))
            taken = x + wide + 6
        end_row, x = self.axis.point(self.heap_end - 1)
        if end_row == row:
            text = f"break {self.heap_end - HEAP_START:#x}"
            anchor = "end" if x > text_width(text, 9.5, mono=True) else "start"
            if x - text_width(text, 9.5, mono=True) > taken or anchor == "start":
                self.sheet.add(Label(x, y + 13, text, "muted", 9.5, anchor, mono=True))

    # ---- What happened
    # ----------------------------------------------------------------------------------------------

    def _block_left(self) -> Block | None:
        """The block that a realloc has moved away from, if it has."""
        copied = self.scene.step.happened("copied")
        if not copied:
            return None
        blocks = (*self.scene.before, *self.scene.mappings_before)
        return next((block for block in blocks if block.address == copied[0].address), None)

    def _is_in_the_way(self, block: Block) -> bool:
        return any(
            event.other == block.address and block.status == "allocated"
            for event in self.scene.step.happened("blocked")
        )

    def _notes(self) -> Iterator[_Note]:
        for event in self.scene.step.events:
            address = event.address or 0
            match event.kind:
                case "preallocated" | "appended":
                    yield from self._over(
                        f"brk: + {format_count(event.bytes)} B", "new", address, address + event.bytes
                    )
                case "grown":
                    yield from self._over(
                        f"brk: + {format_count(event.bytes)} B",
                        "new",
                        self.heap_end - event.bytes,
                        self.heap_end,
                    )
                case "split":
                    yield self._at("split", "move", event.other or 0)
                case "merged":
                    yield self._at("merged", "new", event.other or 0)
                case "blocked" if event.other is not None:
                    in_the_way = [block for block in self.heap if self._is_in_the_way(block)]
                    for block in in_the_way:
                        yield from self._over("in the way", "stop", block.address, block.end)
                case "copied" if self.old is not None and self.old.status != "mapped":
                    yield from self._over(
                        f"{self.scene.name_of(self.old)} was here", "move", self.old.address, self.old.end
                    )
                case "freed" if self.old is None:
                    yield from self._over("freed", "move", address, address + event.bytes)
                case _:
                    pass

    def _over(self, text: str, ink: Ink, start: int, end: int) -> Iterator[_Note]:
        spans = list(self.axis.spans(start, end))
        if spans:
            widest = max(spans, key=lambda span: span.end - span.start)
            yield _Note(text, ink, widest.row, widest.start, widest.end)

    def _at(self, text: str, ink: Ink, address: int) -> _Note:
        row, x = self.axis.point(address)
        return _Note(text, ink, row, x, x)

    def _note(self, note: _Note, top: float, arcs: float) -> None:
        baseline = top - arcs - 8 - note.lane * _LANE_HEIGHT
        middle = (note.start + note.end) / 2
        self.sheet.add(Label(note.x, baseline, note.text, note.ink, 11, "middle", bold=True))
        bottom = top + _BAR_HEIGHT + 3 if note.start == note.end else top - 2
        dashed = note.start == note.end
        self.sheet.add(Path(((middle, baseline + 3), (middle, bottom)), note.ink, 1.5, dashed=dashed))
        if note.start != note.end:
            self.sheet.add(Path(((note.start + 1, top - 2), (note.end - 1, top - 2)), note.ink, 2.5))

    def _arc_starts_or_ends_in(self, row: int) -> bool:
        if self.old is None:
            return False
        new = self._block_at(self.scene.step.pointer)
        rows = {
            self.axis.point(b.payload)[0] for b in (self.old, new) if b is not None and b.status != "mapped"
        }
        return row in rows

    def _block_at(self, payload: int) -> Block | None:
        return next((b for b in (*self.heap, *self.scene.step.mappings) if b.payload == payload), None)

    def _moves(self) -> None:
        """An arrow from where the content was to where it is."""
        new = self._block_at(self.scene.step.pointer)
        if self.old is None or new is None:
            return
        start, end = self._top_of(self.old), self._top_of(new)
        if start is None or end is None:
            return
        if self.old.status != "mapped":
            for span in self.axis.spans(self.old.address, self.old.end):
                top = self.bar_tops[span.row]
                self.sheet.add(
                    Rect(
                        span.start + 1,
                        top + 1,
                        span.end - span.start - 2,
                        _BAR_HEIGHT - 2,
                        None,
                        "move",
                        2,
                        dashed=True,
                    )
                )
        lift = min(start[1], end[1]) - _ARC_HEIGHT
        curve = _curve(start, (start[0], lift), (end[0], lift), (end[0], end[1] - 5))
        self.sheet.add(Path(curve, "ground", 5), Path(curve, "move", 2.2), _arrow_head(curve))
        copied = self.scene.step.happened("copied")[0]
        text = f"{format_count(copied.bytes)} B copied"
        wide = text_width(text, 11, bold=True)
        # Between rows the arrow runs down: its label stands beside it, not on it.
        x = (start[0] + end[0]) / 2 if start[1] == end[1] else end[0] + wide / 2 + 12
        x = min(max(x, wide / 2), self.width - wide / 2)
        y = lift + 11
        self.sheet.add(Rect(x - wide / 2 - 3, y - 10, wide + 6, 14, "ground"))
        self.sheet.add(Label(x, y, text, "move", 11, "middle", bold=True))

    def _top_of(self, block: Block) -> tuple[float, float] | None:
        if block.status == "mapped":
            return self.cards.get(block.address)
        spans = list(self.axis.spans(block.payload, block.end))
        widest = max(spans, key=lambda span: span.end - span.start)
        if widest.row >= len(self.bar_tops):
            return None
        return (widest.start + widest.end) / 2, self.bar_tops[widest.row]

    # ---- Mapped blocks
    # ----------------------------------------------------------------------------------------------

    def _mappings(self, y: float) -> float:
        now = {block.address: block for block in self.scene.step.mappings}
        shown = {block.address: block for block in self.scene.mappings_before} | now
        if not shown:
            return y
        caption = "mapped blocks, each outside the heap; to a scale of their own"
        self.sheet.add(Label(0, y + 14, caption, "muted", 10.5))
        y += 22
        largest = max(block.total_bytes for block in shown.values())
        x, gap = 0.0, 10.0
        for address, block in sorted(shown.items()):
            name = self.scene.name_of(block)
            text = f"{name} {format_count(block.requested_bytes)} B"
            wide = max(text_width(text, 11, bold=True) + 14, block.total_bytes / largest * self.width * 0.4)
            wide = min(wide, self.width)
            if x and x + wide > self.width:
                x, y = 0.0, y + _CARD_HEIGHT + 8
            self.cards[address] = (x + wide / 2, y)
            gone, fresh = address not in now, block.payload == self.scene.step.pointer
            edge: Ink = "move" if gone else "new" if fresh else "edge"
            self.sheet.add(
                Rect(
                    x,
                    y,
                    wide,
                    _CARD_HEIGHT,
                    None if gone else "mapped",
                    edge,
                    2.5 if fresh else 1.2,
                    gone,
                    text,
                )
            )
            if not gone:
                header = max(3.0, block.header_bytes / block.total_bytes * wide)
                self.sheet.add(
                    Rect(x, y, header, _CARD_HEIGHT, "header", title=f"header: {block.header_bytes} bytes")
                )
            self.sheet.add(
                Label(x + wide / 2, y + 15, f"{name}", "muted" if gone else "text", 12, "middle", bold=True),
                Label(
                    x + wide / 2,
                    y + 28,
                    "unmapped" if gone else f"{format_count(block.requested_bytes)} B",
                    "muted" if gone else "text",
                    10,
                    "middle",
                ),
            )
            x += wide + gap
        return y + _CARD_HEIGHT + 4


def _arrange(notes: Sequence[_Note], width: float) -> int:
    """Put notes into as few lanes as keep them from covering each other; the number of lanes."""
    lanes: list[float] = []
    for note in sorted(notes, key=lambda note: note.start + note.end):
        wide = text_width(note.text, 11, bold=True)
        middle = (note.start + note.end) / 2
        note.x = min(max(middle, wide / 2), width - wide / 2)
        left = min(note.x - wide / 2, middle - 4)
        for lane, taken in enumerate(lanes):
            if left > taken + 6:
                note.lane = lane
                break
        else:
            note.lane = len(lanes)
            lanes.append(0)
        lanes[note.lane] = max(note.x + wide / 2, middle + 4)
    return len(lanes)


_Point = tuple[float, float]


def _curve(start: _Point, first: _Point, second: _Point, end: _Point) -> tuple[_Point, ...]:
    """A cubic Bézier curve as short straight lines."""
    points: list[_Point] = []
    for step in range(25):
        t = step / 24
        weights = ((1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3)
        x = sum(w * p[0] for w, p in zip(weights, (start, first, second, end), strict=True))
        y = sum(w * p[1] for w, p in zip(weights, (start, first, second, end), strict=True))
        points.append((x, y))
    return tuple(points)


def _arrow_head(curve: tuple[_Point, ...]) -> Path:
    (x0, y0), (x, y) = curve[-3], curve[-1]
    length = math.hypot(x - x0, y - y0) or 1.0
    dx, dy = (x - x0) / length, (y - y0) / length
    tip = (x + dx * 5, y + dy * 5)
    return Path(
        (tip, (x - dx * 5 - dy * 5, y - dy * 5 + dx * 5), (x - dx * 5 + dy * 5, y - dy * 5 - dx * 5)),
        None,
        fill="move",
    )
