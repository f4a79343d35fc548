"""The live view in the terminal: processes, totals, the live curve, the table of size classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, Final

import numpy as np
import numpy.typing as npt
from rich.table import Table
from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.timer import Timer
from textual.widgets import DataTable, Footer, Label, OptionList, Static
from textual.widgets.option_list import Option

from heapsmith.errors import HeapsmithError
from heapsmith.run.history import Baseline, Curve, History, ProcessKey, ProcessSource, check_interval, key_of
from heapsmith.run.values import Process
from heapsmith.show import palette
from heapsmith.show.save import KINDS, Shown, write_file
from heapsmith.show.tree import find_first
from heapsmith.show.view import ALL_THREADS, Cell, View, compute_view, decode_key, find_thread
from heapsmith.units import format_bytes, format_seconds

INTERVALS_S: Final = (0.25, 0.5, 1.0, 2.0, 5.0, 10.0)
_TONES: Final = {"alive": "green", "bad": "bold red", "warn": "yellow", "ended": "dim", "": ""}
_SIGNS: Final = {"alive": "●", "bad": "✖", "ended": "○"}
_DEEPEST: Final = 4
_CURVE_POINTS: Final = 400
_TILE_CELLS: Final = 34
_EIGHTHS: Final = " ▁▂▃▄▅▆▇█"


class Choice(ModalScreen[str]):
    """A list to choose one thing from; escape chooses nothing.

    Args:
        title: What is chosen.
        options: Value and label of each.
        chosen: The value that holds now.
    """

    BINDINGS: ClassVar[list[BindingType]] = [("escape", "leave", "Back")]
    CSS = """
    Choice { align: center middle; }
    Choice > Vertical {
        width: 64; max-width: 90%; height: auto; max-height: 80%; border: round $primary; padding: 0 1;
    }
    Choice OptionList { height: auto; max-height: 24; border: none; }
    """

    def __init__(self, title: str, options: Sequence[tuple[str, str]], chosen: str = "") -> None:
        super().__init__()
        self._title = title
        self._options = options
        self._chosen = chosen

    def compose(self) -> ComposeResult:
        """Build the list."""
        with Vertical():
            yield Label(Text(self._title, style="bold"))
            yield OptionList(*(Option(Text(label), id=f"choice-{value}") for value, label in self._options))

    def on_mount(self) -> None:
        """Begin at the choice that holds now."""
        values = [value for value, _ in self._options]
        self.query_one(OptionList).highlighted = values.index(self._chosen) if self._chosen in values else 0

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Answer the choice."""
        self.dismiss((event.option.id or "").removeprefix("choice-"))

    def action_leave(self) -> None:
        """Answer that nothing was chosen."""
        self.dismiss("")


class LiveCurve(Static):
    """Live bytes over time as columns that stand on zero."""

    def __init__(self) -> None:
        super().__init__(id="curve")
        self._values: npt.NDArray[np.float64] = np.zeros(0)

    def plot(self, values: npt.NDArray[np.float64]) -> None:
        """Show other values, ``(n_points,)``, oldest first."""
        self._values = values
        self.refresh()

    def render(self) -> Text:
        """Draw one column for each cell of the width: the highest of its points."""
        width, height = max(1, self.size.width), max(1, self.size.height)
        points = self._values
        highest = float(points.max(initial=0.0))
        if highest <= 0:
            return Text()
        edges = np.linspace(0, len(points), width + 1)
        starts = np.minimum(edges[:-1].astype(int), len(points) - 1)
        ends = np.maximum(np.ceil(edges[1:]).astype(int), starts + 1)
        columns = [float(points[start:end].max()) for start, end in zip(starts, ends, strict=True)]
        eighths = [round(8 * height * value / highest) for value in columns]
        lines = [
            "".join(_EIGHTHS[min(8, max(0, count - 8 * row))] for count in eighths)
            for row in range(height - 1, -1, -1)
        ]
        return Text("\n".join(lines), style=palette.LIVE.dark)


class TopApp(App[None]):
    """``heapsmith top``.

    Args:
        source: Where processes come from.
        interval_s: How often to look.
        folder: Where files are saved.
    """

    TITLE = "heapsmith"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #head { height: 2; padding: 0 1; }
    #tiles { height: auto; padding: 0 1; }
    #curve { height: 4; margin: 1 1 0 1; }
    #scale { height: 1; padding: 0 1; color: $text-muted; }
    #body { height: 1fr; margin-top: 1; }
    #processes { width: 44; max-width: 40%; margin-right: 1; display: none; }
    #processes.many { display: block; }
    #classes { width: 1fr; }
    #caption { height: 1; padding: 0 1; }
    #empty { display: none; padding: 2 4; color: $text-muted; }
    DataTable { height: 1fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("t", "choose_thread", "Thread"),
        Binding("s", "sort_next", "Sort"),
        Binding("i", "invert", "Invert"),
        Binding("r", "reset", "Reset"),
        Binding("p", "pause", "Pause"),
        Binding("w", "save", "Save"),
        Binding("plus,equals_sign", "faster", "Faster", key_display="+"),
        Binding("minus", "slower", "Slower", key_display="-"),
        Binding("q", "quit", "Quit"),
    ]

    def __init__(self, source: ProcessSource, interval_s: float = 1.0, folder: Path | None = None) -> None:
        super().__init__()
        self._source = source
        self._interval_s = check_interval(interval_s)
        self._folder = folder or Path.cwd()
        self._history = History()
        self._key: ProcessKey | None = None
        self._before: ProcessKey | None = None
        self._thread = ALL_THREADS
        self._baseline: Baseline | None = None
        self._paused = False
        self._problem = ""
        self._sort_column = 1
        self._downwards = True
        self._tree: DataTable[Text] = DataTable(id="processes", cursor_type="row")
        self._table: DataTable[Text] = DataTable(
            id="classes", cursor_type="row", zebra_stripes=True, fixed_columns=1
        )
        # Held here and not looked up: the timer may tick once more while the screen goes down.
        self._head, self._tiles = Static(id="head"), Static(id="tiles")
        self._scale, self._caption, self._empty = Static(id="scale"), Static(id="caption"), Static(id="empty")
        self._body = Horizontal(id="body")
        self._curve = LiveCurve()
        self._timer: Timer | None = None
        self._columns: list[str] = []
        self._process_keys: list[str] = []
        self._shown: Shown | None = None
        self._view: View | None = None

    def compose(self) -> ComposeResult:
        """Build the screen."""
        yield self._head
        yield self._tiles
        yield self._curve
        yield self._scale
        yield self._caption
        with self._body:
            yield self._tree
            yield self._table
        yield self._empty
        yield Footer()

    def on_mount(self) -> None:
        """Look for the first time, and from now on."""
        self._tree.add_columns("Process", Text("Live", justify="right"))
        self._table.focus()
        self._look()
        self._start_timer()

    def _start_timer(self) -> None:
        if self._timer is not None:
            self._timer.stop()
        self._timer = self.set_interval(self._interval_s, self._look)

    def _look(self) -> None:
        try:
            self._history.add(self._source.poll())
            self._problem = ""
        except (OSError, HeapsmithError) as error:
            self._problem = f"The processes cannot be read: {error}"
        if self._baseline is not None:
            process = self._history.find(self._baseline.key)
            if process is not None:
                self._baseline.observe(process)
        if not self._paused:
            self._show()

    def _find(self) -> Process | None:
        process = self._history.find(self._key) or find_first(self._history.processes, self._before)
        self._before = key_of(process) if process else None
        return process

    def _show(self) -> None:
        process = self._find()
        counted, since_s = process, None
        if process is not None and self._baseline is not None and self._baseline.key == key_of(process):
            counted, since_s = self._baseline.since(process), self._baseline.process.time_s
        view = compute_view(self._history, process, counted, self._thread, since_s, self._problem)
        self._view = view
        if process is None or counted is None:
            self._show_nothing()
            return
        curve = self._history.curve(key_of(process))
        self._shown = Shown(counted, find_thread(counted, self._thread), curve, since_s)
        self._empty.display = False
        self._body.display = True
        self._show_head(view)
        self._show_curve(process, curve)
        self._show_processes(view)
        self._show_classes(view)

    def _show_nothing(self) -> None:
        self._body.display = False
        empty = self._empty
        empty.display = True
        empty.update(
            self._problem
            or "No watched process yet. Start one with: heapsmith run -- COMMAND\nIt appears here by itself."
        )

    def _show_head(self, view: View) -> None:
        head = Text.assemble((view.name, "bold"), f"  {view.pid}  ", (view.state, _TONES[view.tone]))
        if self._paused:
            head.append("  paused", style="yellow")
        if view.since:
            head.append(f"  {view.since}", style="cyan")
        head.append(f"\n{view.problem or view.facts}", style="bold red" if view.problem else "dim")
        self._head.update(head)
        self._tiles.update(self._arrange_tiles(view))
        thread = dict(view.threads)[view.thread]
        order = "descending" if self._downwards else "ascending"
        column = view.columns[min(self._sort_column, len(view.columns) - 1)].name
        self._caption.update(
            Text.assemble(("Size classes of ", "dim"), (thread, "bold"), (f"  by {column}, {order}", "dim"))
        )

    def _arrange_tiles(self, view: View) -> Table:
        across = max(1, min(4, (self.size.width - 2) // _TILE_CELLS))
        table = Table.grid(expand=True)
        for _ in range(across):
            table.add_column(ratio=1, no_wrap=True)
        cells = [
            Text.assemble(
                (f"{tile.name} ", "dim"),
                (tile.value, _TONES.get(tile.tone) or "bold"),
                (f"  {tile.note}", "dim"),
            )
            for tile in view.tiles
        ]
        for start in range(0, len(cells), across):
            table.add_row(*cells[start : start + across])
        return table

    def _show_curve(self, process: Process, curve: Curve) -> None:
        live = curve.column("live_bytes")[-_CURVE_POINTS:]
        self._curve.plot(live)
        if len(live) > 1:
            first_s, last_s = float(curve.times_s[-len(live)]), float(curve.times_s[-1])
            span = f"{format_seconds(first_s)} to {format_seconds(last_s)}"
            scale = f"live from {span}, highest {format_bytes(float(live.max()))}"
        else:
            scale = f"live {format_bytes(process.live_bytes)}"
        self._scale.update(scale)

    def _show_processes(self, view: View) -> None:
        table = self._tree
        table.set_class(len(view.processes) > 1, "many")
        rows = [
            (
                Text.assemble(
                    "  " * min(entry.depth, _DEEPEST),
                    (_SIGNS.get(entry.tone, " "), _TONES[entry.tone]),
                    (f" {entry.name} {entry.pid}", "bold" if entry.chosen else ""),
                ),
                Text(entry.live, justify="right"),
            )
            for entry in view.processes
        ]
        self._process_keys = [entry.key for entry in view.processes]
        _fill(table, rows)

    def _show_classes(self, view: View) -> None:
        table = self._table
        names = [column.name for column in view.columns]
        if names != self._columns:
            table.clear(columns=True)
            table.add_columns(names[0], *(Text(name, justify="right") for name in names[1:]))
            self._columns = names
            self._sort_column = min(self._sort_column, len(names) - 1)
        rows = sorted(view.rows, key=lambda row: _sort_key(row[self._sort_column]), reverse=self._downwards)
        cells = [_cells([text for _, text in row]) for row in rows]
        if cells:
            cells.append(_cells(view.total, style="bold"))
        _fill(table, cells)

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        """Choose a process."""
        if not self._tree.has_focus or event.cursor_row >= len(self._process_keys):
            return
        key = decode_key(self._process_keys[event.cursor_row])
        if key is not None:
            self._key, self._thread = key, ALL_THREADS
            self._show()

    def on_data_table_header_selected(self, event: DataTable.HeaderSelected) -> None:
        """Sort by the column that was clicked; invert when it was so already."""
        if event.column_key in self._table.columns:
            self._sort_by(event.column_index)

    def _sort_by(self, column: int) -> None:
        self._downwards = not self._downwards if column == self._sort_column else column > 0
        self._sort_column = column
        self._show()

    def action_sort_next(self) -> None:
        """Sort by the next column."""
        self._sort_by((self._sort_column + 1) % max(1, len(self._columns)))

    def action_invert(self) -> None:
        """Turn the order round."""
        self._sort_by(self._sort_column)

    def action_choose_thread(self) -> None:
        """Ask for a thread."""
        if self._view is not None and self._view.threads:
            self._ask(
                "Size classes of which thread?", self._view.threads, self._view.thread, self._set_thread
            )

    def _set_thread(self, value: str) -> None:
        self._thread = value
        self._show()

    def action_reset(self) -> None:
        """Count from here on, or from the start again."""
        process = self._find()
        self._baseline = None if self._baseline or process is None else Baseline(process)
        self._show()

    def action_pause(self) -> None:
        """Hold the picture still, or go on."""
        self._paused = not self._paused
        self._show()

    def action_faster(self) -> None:
        """Look more often."""
        self._change_interval([s for s in INTERVALS_S if s < self._interval_s][-1:])

    def action_slower(self) -> None:
        """Look less often."""
        self._change_interval([s for s in INTERVALS_S if s > self._interval_s][:1])

    def _change_interval(self, wanted: Sequence[float]) -> None:
        for interval_s in wanted:
            self._interval_s = interval_s
            self._start_timer()
            self.notify(f"every {format_seconds(interval_s)}", timeout=2)

    def action_save(self) -> None:
        """Ask what to save, and write it."""
        if self._shown is not None:
            kinds = [(kind, f"heapsmith-…-{kind}") for kind in KINDS]
            self._ask(f"Save what is shown into {self._folder}", kinds, "", self._save)

    def _save(self, kind: str) -> None:
        if self._shown is None:
            return
        try:
            path = write_file(self._shown, kind, self._folder)
        except HeapsmithError as error:
            self.notify(str(error), severity="error", timeout=8)
        else:
            self.notify(f"saved {path.name}")

    def _ask(
        self, title: str, options: Sequence[tuple[str, str]], chosen: str, then: Callable[[str], None]
    ) -> None:
        def take(value: str | None) -> None:
            if value:
                then(value)

        self.push_screen(Choice(title, options, chosen), take)


def _cells(texts: Sequence[str], style: str = "") -> list[Text]:
    first, *others = texts
    return [Text(first, style=style), *(Text(text, style=style, justify="right") for text in others)]


def _sort_key(cell: Cell) -> float:
    return float("inf") if cell[0] is None else cell[0]


def _fill(table: DataTable[Text], rows: Sequence[Sequence[Text]]) -> None:
    """Bring a table up to date without moving the person's cursor or scroll."""
    while table.row_count > len(rows):
        table.remove_row(table.coordinate_to_cell_key((table.row_count - 1, 0)).row_key)  # pyright: ignore
    for place, row in enumerate(rows):
        if place >= table.row_count:
            table.add_row(*row)
            continue
        for column, text in enumerate(row):
            if table.get_cell_at((place, column)) != text:  # pyright: ignore
                table.update_cell_at((place, column), text, update_width=True)  # pyright: ignore
