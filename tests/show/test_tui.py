from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
from textual.pilot import Pilot
from textual.widgets import DataTable, Static

import believable
from believable import Machine
from heapsmith.errors import RunError
from heapsmith.run.values import Exit
from heapsmith.show.labels import class_label
from heapsmith.show.tui import TopApp
from heapsmith.units import format_bytes, format_count

Act = Callable[[TopApp, Pilot[None]], Awaitable[None]]


def drive(machine: Machine, act: Act, folder: Path | None = None, size: tuple[int, int] = (130, 40)) -> None:
    async def run() -> None:
        app = TopApp(machine, 0.1, folder)
        async with app.run_test(size=size) as pilot:
            await pilot.pause(0.2)
            await act(app, pilot)

    # A loop of its own thread: the browser tests leave theirs running in this one.
    with ThreadPoolExecutor(1) as alone:
        alone.submit(asyncio.run, run()).result()


def rows(app: TopApp, which: str = "#classes") -> list[list[str]]:
    table = app.query_one(which, DataTable)
    return [[str(cell) for cell in table.get_row_at(place)] for place in range(table.row_count)]


def words(app: TopApp, which: str) -> str:
    return str(app.query_one(which, Static).render())


def test_it_shows_totals_and_one_row_for_each_size_class_in_use_and_the_sum() -> None:
    machine = Machine(time_s=30)

    async def act(app: TopApp, pilot: Pilot[None]) -> None:
        process = machine.poll()[0]
        assert "python3  pid 4711  running" in words(app, "#head")
        shown = rows(app)
        assert len(shown) == len(process.size_classes) + 1
        heaviest = max(process.size_classes, key=lambda row: row.live_bytes)
        assert shown[0][:2] == [class_label(heaviest.class_bytes), format_bytes(heaviest.live_bytes)]
        assert shown[-1][:3] == [
            "SUM",
            format_bytes(process.live_bytes),
            format_bytes(process.live_bytes_peak),
        ]
        machine.time_s = 44
        await pilot.pause(0.3)
        assert rows(app)[-1][1] == format_bytes(machine.poll()[0].live_bytes)

    drive(machine, act)


def test_a_thread_is_chosen_from_a_list() -> None:
    machine = Machine(time_s=30)

    async def act(app: TopApp, pilot: Pilot[None]) -> None:
        busiest = max((t for t in machine.poll()[0].threads if t.alive), key=lambda t: t.allocations)
        await pilot.press("t")
        await pilot.press("down", "enter")
        await pilot.pause(0.2)
        assert f"{busiest.name} · {busiest.tid}" in words(app, "#caption")
        assert rows(app)[-1][4] == format_count(busiest.allocations)
        assert rows(app)[-1][2] == "–"

    drive(machine, act)


def test_reset_counts_from_here_on_and_again_from_the_start() -> None:
    machine = Machine(time_s=30)

    async def act(app: TopApp, pilot: Pilot[None]) -> None:
        before = machine.poll()[0]
        await pilot.press("r")
        machine.time_s = 40
        await pilot.pause(0.3)
        after = machine.poll()[0]
        assert "counted since 30.0 s" in words(app, "#head")
        assert rows(app)[-1][4] == format_count(after.allocations - before.allocations)
        await pilot.press("r")
        assert rows(app)[-1][4] == format_count(after.allocations)

    drive(machine, act)


def test_sorting_goes_through_the_columns_and_can_be_inverted() -> None:
    machine = Machine(time_s=30)

    async def act(app: TopApp, pilot: Pilot[None]) -> None:
        classes = machine.poll()[0].size_classes
        await pilot.press("s")
        assert rows(app)[0][2] == format_bytes(max(row.live_bytes_peak for row in classes))
        await pilot.press("i")
        assert rows(app)[0][2] == format_bytes(min(row.live_bytes_peak for row in classes))
        assert rows(app)[-1][0] == "SUM"

    drive(machine, act)


def test_what_is_shown_is_saved_without_overwriting(tmp_path: Path) -> None:
    machine = Machine(time_s=30)

    async def act(app: TopApp, pilot: Pilot[None]) -> None:
        for _ in range(2):
            await pilot.press("w")
            await pilot.press("enter")
            await pilot.pause(0.1)

    drive(machine, act, tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["heapsmith-python3-4711-table-2.csv", "heapsmith-python3-4711-table.csv"]
    frame = pl.read_csv(tmp_path / names[1])
    assert frame["live_bytes"].sum() == machine.poll()[0].live_bytes


def test_a_folder_that_cannot_be_written_is_said_and_nothing_ends(tmp_path: Path) -> None:
    machine = Machine(time_s=30)

    async def act(app: TopApp, pilot: Pilot[None]) -> None:
        await pilot.press("w")
        await pilot.press("enter")
        await pilot.pause(0.2)
        messages = [notification.message for notification in app._notifications]  # pyright: ignore
        assert any("cannot write" in message for message in messages)
        assert app.is_running

    drive(machine, act, tmp_path / "missing")


def test_pause_holds_the_picture_and_looking_goes_on() -> None:
    machine = Machine(time_s=30)

    async def act(app: TopApp, pilot: Pilot[None]) -> None:
        await pilot.press("p")
        held, polls = rows(app), machine.polls
        machine.time_s = 44
        await pilot.pause(0.4)
        assert rows(app) == held
        assert machine.polls > polls
        await pilot.press("p")
        assert rows(app) != held

    drive(machine, act)


def test_another_process_is_chosen_from_the_tree() -> None:
    machine = Machine(believable.server_and_workers(3), time_s=30)

    async def act(app: TopApp, pilot: Pilot[None]) -> None:
        assert len(rows(app, "#processes")) == 4
        await pilot.press("shift+tab", "down", "down", "enter")
        await pilot.pause(0.2)
        assert "worker  pid 4801" in words(app, "#head")

    drive(machine, act)


def test_after_the_end_the_last_values_stay_with_how_it_came() -> None:
    machine = Machine(time_s=30)

    async def act(app: TopApp, pilot: Pilot[None]) -> None:
        machine.end(4711, Exit(None, 9, True))
        await pilot.pause(0.3)
        assert "killed by the kernel: out of memory" in words(app, "#head")
        assert rows(app)[-1][1] == format_bytes(machine.poll()[0].live_bytes)
        assert app.is_running

    drive(machine, act)


def test_no_process_a_failing_look_and_a_tiny_terminal_are_no_errors() -> None:
    machine = Machine([], time_s=30)

    async def act(app: TopApp, pilot: Pilot[None]) -> None:
        assert "heapsmith run -- COMMAND" in words(app, "#empty")
        await pilot.press("t", "s", "i", "r", "w", "plus", "minus")
        machine.processes.append({})
        await pilot.pause(0.3)
        assert rows(app)[-1][0] == "SUM"

        def fail() -> list[object]:
            raise RunError("the run directory is gone")

        machine.poll = fail  # type: ignore[method-assign, assignment]
        await pilot.pause(0.3)
        assert "the run directory is gone" in words(app, "#head")
        assert rows(app)[-1][0] == "SUM"

    drive(machine, act, size=(40, 14))
