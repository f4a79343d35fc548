"""One browser: what it has chosen, what it was sent, what it asks for."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, Final

import msgspec
from bokeh.core.properties import Int, String
from bokeh.document import Document
from bokeh.model import DataModel
from bokeh.models import ColumnDataSource, CustomJS
from jinja2 import Environment

from heapsmith.errors import HeapsmithError
from heapsmith.run.history import Baseline, ProcessKey, check_interval, key_of
from heapsmith.run.values import Event, Process
from heapsmith.show import figures
from heapsmith.show.page.hub import Hub
from heapsmith.show.save import KINDS, Shown, file_name, render_file
from heapsmith.show.tree import find_first
from heapsmith.show.view import ALL_THREADS, compute_view, decode_key, find_thread
from heapsmith.units import format_bytes, parse_bytes

_UNANSWERED: Final = 2
"""Updates that a browser may leave unanswered: a slow one is sent fewer, so that none pile up here."""
INTERVALS: Final = tuple((text, f"{text} s") for text in ("0.25", "0.5", "1", "2", "5", "10", "30"))
RANGES: Final = (("60", "1 min"), ("600", "10 min"), ("0", "All"))
_LINK: Final = "heapsmith-link"


class Link(DataModel):
    """The wire between the page's script and Python; each property is written by one side only."""

    view: Any = String(default="", help="JSON of what to show; written here")
    number: Any = Int(default=0, help="of the latest update; written here")
    parcel: Any = String(default="", help="JSON of a file to download; written here")
    answer: Any = String(default="", help="JSON of a message for the person; written here")
    seen: Any = Int(default=0, help="the latest update that was shown; written by the browser")
    wish: Any = String(default="", help="JSON of what the person wants; written by the browser")


class Wish(msgspec.Struct, frozen=True):
    """What a person did in the page; ``number`` tells two equal wishes apart."""

    verb: str
    value: str = ""
    number: int = 0


class Session:
    """The page in one browser.

    Args:
        document: Bokeh's document of the browser.
        hub: Where polls come from.
    """

    def __init__(self, document: Document, hub: Hub) -> None:
        self.interval_s = hub.interval_s
        self._document = document
        self._hub = hub
        self._key: ProcessKey | None = None
        self._before: ProcessKey | None = None
        self._thread = ALL_THREADS
        self._paused = False
        self._unfold = False
        self._baseline: Baseline | None = None
        self._sent: tuple[ProcessKey | None, int, int] = (None, 0, 0)
        self._sent_events: Sequence[Event] = ()
        self._frozen: tuple[Process | None, Process | None] = (None, None)
        self._link = Link(name=_LINK)
        self._build()
        self._link.on_change("wish", self._on_wish)
        document.on_session_destroyed(lambda _: self._leave())
        self.refresh()
        hub.add(self)

    def wake(self) -> None:
        """Show the latest poll once Bokeh has locked the document; a browser that lags is sent nothing."""
        if self._baseline is not None:
            process = self._hub.history.find(self._baseline.key)
            if process is not None:
                self._baseline.observe(process)
        if not self._paused and self._link.number - self._link.seen < _UNANSWERED:
            self._document.add_next_tick_callback(self.refresh)

    def refresh(self) -> None:
        """Bring the browser up to date with the latest poll."""
        process = self._choose()
        counted = self._count(process)
        self._frozen = (process, counted)
        title = f"{process.name} · heapsmith" if process else "heapsmith"
        self._document.hold("combine")
        if self._document.title != title:
            self._document.title = title
        self._update_figures(process)
        self._link.view = self._say(process, counted)
        self._link.number += 1
        self._document.unhold()

    def _build(self) -> None:
        empty = figures.time_columns(self._hub.history.curve(ProcessKey(0, 0, 0.0)))
        self._source = ColumnDataSource(empty)
        self._marks = ColumnDataSource(figures.mark_columns([]))
        self._time = figures.time_range()
        self._memory = figures.memory_figure(self._source, self._marks, self._time, height=230)
        self._rate = figures.rate_figure(self._source, self._time, height=120)
        self._heat = figures.heat_figure(self._time, height=250)
        plots = [self._memory.plot, self._rate, self._heat.plot]
        self._spans = figures.reset_mark(plots)
        for root in plots:
            self._document.add_root(root)
        self._memory.plot.tags = [self._link]  # what a root refers to belongs to the document
        ready = CustomJS(args={"link": self._link}, code="globalThis.heapsmithPage(link);")
        self._document.js_on_event("document_ready", ready)
        self._document.template = page_template()
        self._document.template_variables.update(
            style=_asset("page.css"),
            script=_asset("page.js"),
            intervals=_with_default(INTERVALS, self.interval_s),
            ranges=RANGES,
            chosen_interval=f"{self.interval_s:g}",
        )
        config: Any = getattr(self._document, "config", None)
        if config is not None:
            # The page has words of its own for a lost connection, and comes back by loading itself again.
            config.reconnect_session = False
            config.notify_connection_status = False

    def _choose(self) -> Process | None:
        history = self._hub.history
        process = history.find(self._key) or find_first(history.processes, self._before)
        self._before = key_of(process) if process else None
        return process

    def _count(self, process: Process | None) -> Process | None:
        if process is None or self._baseline is None or self._baseline.key != key_of(process):
            return process
        return self._baseline.since(process)

    def _say(self, process: Process | None, counted: Process | None) -> str:
        view = compute_view(
            self._hub.history,
            process,
            counted,
            self._thread,
            self._since_s(process),
            self._hub.problem,
            unfold=self._unfold,
        )
        return msgspec.json.encode(view).decode()

    def _since_s(self, process: Process | None) -> float | None:
        if process is None or self._baseline is None or self._baseline.key != key_of(process):
            return None
        return self._baseline.process.time_s

    def _update_figures(self, process: Process | None) -> None:
        if process is None:
            return
        key = key_of(process)
        curve = self._hub.history.curve(key)
        sent_key, revision, length = self._sent
        if (sent_key, revision) == (key, curve.revision) and length <= len(curve):
            if length < len(curve):
                new = figures.time_columns(curve, length)
                self._source.stream(new)  # pyright: ignore[reportUnknownMemberType] (in Bokeh's own types)
        else:
            self._source.data = figures.time_columns(curve)
        if self._sent != (key, curve.revision, len(curve)):
            self._sent = (key, curve.revision, len(curve))
            figures.fit_memory(self._memory, figures.time_columns(curve))
            figures.update_heat(self._heat, figures.compute_heat(curve))
        if self._sent_events != process.events or sent_key != key:
            self._sent_events = process.events
            self._marks.data = figures.mark_columns(process.events)
        since_s = self._since_s(process)
        for span in self._spans:
            if span.visible != (since_s is not None) or (since_s is not None and span.location != since_s):
                span.update(visible=since_s is not None, location=since_s or 0.0)

    def _on_wish(self, _attribute: str, _old: str, new: str) -> None:
        try:
            wish = msgspec.json.decode(new, type=Wish)
            act = self._acts().get(wish.verb)
            if act is None:
                raise HeapsmithError(f"the page asked for {wish.verb!r}", "that is not known here")
            act(wish.value)
        except (HeapsmithError, msgspec.MsgspecError, OSError) as error:
            self._tell(str(error), "bad")

    def _acts(self) -> dict[str, Callable[[str], None]]:
        return {
            "process": self._choose_process,
            "thread": self._choose_thread,
            "unfold": self._unfold_processes,
            "interval": self._set_interval,
            "range": self._set_range,
            "pause": self._pause,
            "reset": self._reset,
            "save": self._save,
            "limit": self._set_limit,
            "warn_at": self._set_warn_at,
        }

    def _choose_process(self, value: str) -> None:
        key = decode_key(value)
        if self._hub.history.find(key) is None:
            return  # a choice from before a reload, of a process that is no longer kept
        self._key = key
        self._thread = ALL_THREADS
        self.refresh()

    def _choose_thread(self, value: str) -> None:
        self._thread = value
        if self._paused:
            process, counted = self._frozen
            self._link.view = self._say(process, counted)
        else:
            self.refresh()

    def _unfold_processes(self, _value: str) -> None:
        self._unfold = not self._unfold
        self.refresh()

    def _set_interval(self, value: str) -> None:
        try:
            seconds = float(value)
        except ValueError:
            raise HeapsmithError(f"{value!r} is no update interval") from None
        self.interval_s = check_interval(seconds)
        self._hub.hurry()

    def _set_range(self, value: str) -> None:
        seconds = float(value) if value in dict(RANGES) else 0.0
        self._time.update(follow="end" if seconds else None, follow_interval=seconds or None)

    def _pause(self, value: str) -> None:
        self._paused = value == "on"
        if not self._paused:
            self.refresh()

    def _reset(self, value: str) -> None:
        process = self._choose()
        self._baseline = Baseline(process) if value == "on" and process is not None else None
        self.refresh()

    def _save(self, kind: str) -> None:
        process, counted = self._frozen
        if process is None or counted is None:
            raise HeapsmithError("nothing to save", "no process is shown")
        curve = self._hub.history.curve(key_of(process))
        shown = Shown(counted, find_thread(counted, self._thread), curve, self._since_s(process))
        content = base64.b64encode(render_file(shown, kind)).decode()
        parcel = {"name": file_name(shown, kind), "type": KINDS[kind], "content": content}
        self._link.parcel = ""
        self._link.parcel = msgspec.json.encode(parcel).decode()

    def _set_limit(self, value: str) -> None:
        self._set("limit", value, self._hub.source.set_limit)

    def _set_warn_at(self, value: str) -> None:
        self._set("warning threshold", value, self._hub.source.set_warn_at)

    def _set(self, what: str, value: str, setter: Callable[[int, int | None], None]) -> None:
        process = self._choose()
        if process is None or not process.alive:
            raise HeapsmithError(f"cannot set a {what}", "the process has ended")
        wanted = parse_bytes(value) if value.strip() else None
        if wanted == 0:
            raise HeapsmithError(f"a {what} of 0 makes no sense", hint="leave it empty for none")
        setter(process.pid, wanted)
        now = "has no " + what if wanted is None else f"has a {what} of {format_bytes(wanted)}"
        self._tell(f"{process.name} ({process.pid}) now {now}", "good")

    def _tell(self, words: str, tone: str) -> None:
        self._link.answer = ""
        self._link.answer = msgspec.json.encode({"words": words, "tone": tone}).decode()

    def _leave(self) -> None:
        self._hub.remove(self)


def _with_default(choices: Sequence[tuple[str, str]], default_s: float) -> list[tuple[str, str]]:
    default = f"{default_s:g}"
    if default in dict(choices):
        return list(choices)
    return sorted([*choices, (default, f"{default} s")], key=lambda choice: float(choice[0]))


@cache
def _asset(name: str) -> str:
    return files("heapsmith.show.page").joinpath(name).read_text(encoding="utf-8")


@cache
def page_template() -> Any:
    """The page's own template over Bokeh's."""
    from bokeh.core.templates import get_env

    environment: Environment = get_env()
    return environment.from_string(_asset("index.html"))
