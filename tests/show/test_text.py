from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, RenderableType

import believable
from heapsmith.run.values import RUN_SCHEMA, Exit, Process, PythonHeap, RunResult
from heapsmith.show.text import render_process, render_processes, render_run_summary
from heapsmith.show.tree import Branch, Folded, arrange, find_first
from heapsmith.units import MiB, format_bytes

DONE = Exit(0, None, False)


def written(thing: RenderableType, width: int = 100) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(thing)
    return capture.get()


def summary(*processes: Process, ended: Exit = DONE, width: int = 100) -> str:
    command = processes[0].command if processes else ["true"]
    return written(render_run_summary(RunResult(RUN_SCHEMA, command, ended, 12.5, list(processes))), width)


def test_the_summary_says_peak_and_when_live_at_exit_and_what_the_kernel_saw() -> None:
    process = believable.process(40, ended=DONE)
    text = summary(process)
    assert f"{format_bytes(process.live_bytes_peak)} ±64.0 KiB at 28.0 s" in text
    assert f"Live at exit   {format_bytes(process.live_bytes)} in" in text
    assert f"resident peak {format_bytes(process.resident_bytes_peak)}" in text
    assert "34,567 minor, 2 major" in text
    assert "freed again" in text


def test_the_summary_tells_python_objects_and_native_blocks_apart() -> None:
    process = believable.process(40, ended=DONE)
    python = process.python
    assert python is not None and python.live_bytes is not None
    text = summary(process)
    assert f"objects {format_bytes(python.live_bytes)} in" in text
    assert f"native {format_bytes(process.live_bytes - python.live_bytes)}" in text


def test_uncounted_python_objects_come_with_their_reason() -> None:
    python = PythonHeap("3.9.2", MiB, MiB, None, None, "this version is not known")
    text = summary(msgspec.structs.replace(believable.process(9, ended=DONE), python=python))
    assert "objects not counted: this version is not known" in text


def test_failures_limits_losses_and_notes_are_said() -> None:
    process = believable.process(
        40,
        ended=DONE,
        failures=3,
        limit_bytes=512 * MiB,
        warn_at_bytes=300 * MiB,
        notes=["it maps memory itself"],
    )
    text = summary(msgspec.structs.replace(process, lost=7))
    assert "3 allocations failed, 3 of them refused for the limit" in text
    assert "the last asked for 64.0 MiB" in " ".join(text.split())
    assert "512 MiB · warn at 300 MiB, crossed once" in text
    assert "7 events could not be counted" in text
    assert "note it maps memory itself" in text


def test_an_end_by_signal_or_by_the_kernel_is_named() -> None:
    process = believable.process(3)
    assert "killed by SIGSEGV" in summary(process, ended=Exit(None, 11, False))
    assert "killed by the kernel: out of memory" in summary(process, ended=Exit(None, 9, True))


@given(st.integers(40, 200), st.lists(st.text(min_size=1), min_size=1))
def test_how_it_ended_is_said_whatever_the_command_and_the_width(columns: int, command: list[str]) -> None:
    result = RunResult(RUN_SCHEMA, command, Exit(None, 11, False), 0.01, [])
    assert "killed by SIGSEGV" in written(render_run_summary(result), columns).splitlines()[0]


def test_unknown_values_are_question_marks_and_an_empty_process_is_no_error() -> None:
    text = summary(believable.empty())
    assert "resident ?, peak ? · page faults ? minor, ? major" in text
    assert "Size class" not in text


def test_several_processes_are_a_tree_with_the_heaviest_in_detail() -> None:
    processes = [believable.process(30, ended=DONE, **kind) for kind in believable.server_and_workers(3)]  # type: ignore[arg-type]
    heaviest = max(processes, key=lambda process: process.live_bytes_peak)
    text = summary(*processes)
    assert "└ worker" in text
    assert f"Highest peak: {heaviest.name} · {heaviest.pid}" in text


def test_a_summary_of_hundreds_of_processes_stays_one_screenful() -> None:
    processes = [believable.process(5, ended=DONE, **kind) for kind in believable.server_and_workers(300)]  # type: ignore[arg-type]
    text = summary(*processes)
    assert len(text.splitlines()) < 50
    assert "285 more" in text


def test_eighty_columns_cut_no_figure() -> None:
    process = believable.process(40, ended=DONE, failures=3, limit_bytes=512 * MiB)
    text = summary(process, width=80)
    assert all(len(line) <= 80 for line in text.splitlines())
    heaviest = max(process.size_classes, key=lambda row: row.live_bytes_peak)
    assert f"{format_bytes(heaviest.live_bytes_peak)}" in text


def test_no_watched_process_says_how_to_start_one() -> None:
    assert "heapsmith run -- COMMAND" in written(render_processes([]))
    assert "nothing was counted" in summary()


def test_info_lists_every_class_and_adds_the_details_it_is_given() -> None:
    process = believable.process(30)
    text = written(render_process(process, {"Largest block": "12.0 MiB"}))
    assert text.count("≤") == len(process.size_classes)
    assert "Largest block  12.0 MiB" in text


def family(rows: list[tuple[int, int, int]]) -> list[Process]:
    template = believable.empty()
    seen: dict[int, int] = {}
    processes: list[Process] = []
    for pid, ppid, weight in rows:
        seen[pid] = seen.get(pid, 0) + 1
        processes.append(
            msgspec.structs.replace(
                template,
                pid=pid,
                ppid=ppid,
                image=seen[pid],
                start_time_s=len(processes),
                live_bytes_peak=weight,
            )
        )
    return processes


rows_of_families = st.lists(st.tuples(st.integers(1, 12), st.integers(0, 12), st.integers(0, 9)), max_size=40)


@given(rows_of_families, st.integers(1, 50))
def test_a_tree_shows_each_process_once_below_its_parent(rows: list[tuple[int, int, int]], most: int) -> None:
    processes = family(rows)
    last_programs = {process.pid: process for process in processes}
    whole = [row for row in arrange(processes) if isinstance(row, Branch)]
    own = [row for row in whole if row.process is last_programs[row.process.pid]]
    assert sorted(row.process.pid for row in own) == sorted(last_programs)
    first_parent = {process.pid: process.ppid for process in reversed(processes)}
    trail: list[int] = []
    for branch in own:
        assert branch.depth <= len(trail)
        del trail[branch.depth :]
        if trail:
            assert first_parent[branch.process.pid] == trail[-1]
        trail.append(branch.process.pid)
    few = arrange(processes, most)
    shown = [row.process.pid for row in few if isinstance(row, Branch)]
    assert shown == [row.process.pid for row in whole if row.process.pid in shown]
    assert len(set(shown)) + sum(row.processes for row in few if isinstance(row, Folded)) == len(
        last_programs
    )


def test_of_the_programs_of_a_process_the_last_is_shown_and_an_earlier_one_only_if_it_was_heavier() -> None:
    light, heavy, last, child = family([(5, 1, 10), (5, 1, 300), (5, 1, 200), (6, 5, 1)])
    rows = [row for row in arrange([child, last, heavy, light]) if isinstance(row, Branch)]
    assert [(row.process.image, row.process.pid, row.depth) for row in rows] == [
        (3, 5, 0),
        (2, 5, 1),
        (1, 6, 1),
    ]
    assert find_first([child, last, heavy, light]) is last
