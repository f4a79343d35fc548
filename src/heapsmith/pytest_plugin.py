"""pytest's plugin: ``@pytest.mark.heap(limit="50MiB", leaks="1MiB")`` and ``--heap``, a table of the tests by peak.

Heaps are counted by the watch, which has to be in the process from its start. So pytest starts itself once more under
``heapsmith run`` where it is not yet watched and somebody asks for figures. Workers of pytest-xdist inherit the watch.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Generator
from typing import Any, Final

import pytest

from heapsmith import here
from heapsmith.errors import HeapsmithError
from heapsmith.units import format_bytes, format_count, parse_bytes

STARTED_VARIABLE: Final = "HEAPSMITH_PYTEST"
"""Set in a pytest that the plugin started, so that it starts no other one."""
PROPERTY: Final = "heap"
"""Name of the user property of a test's report: a dictionary of what was measured, in bytes."""
_MARKER: Final = (
    "heap(limit=None, leaks=None): fail a test whose live bytes rise by more than limit, "
    "or that leaves more than leaks"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--heap`` and ``--heap-top``."""
    group = parser.getgroup("heapsmith")
    group.addoption("--heap", action="store_true", help="a table of the tests by peak of live bytes")
    group.addoption("--heap-top", type=int, default=20, metavar="N", help="rows of that table (0: all)")


def pytest_configure(config: pytest.Config) -> None:
    """Announce the marker."""
    config.addinivalue_line("markers", _MARKER)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Start again under the watch where figures were asked for."""
    if config.getoption("--heap") and not _is_worker(config):
        _start_watched(config)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Start again under the watch where a collected test is marked; nothing has run yet."""
    if any(item.get_closest_marker("heap") for item in session.items) and not _is_worker(session.config):
        _start_watched(session.config)


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def _is_watched() -> bool:
    try:
        return here.mallinfo().mode == "watched"
    except HeapsmithError:
        return False


def _start_watched(config: pytest.Config) -> None:
    """Replace this process by ``heapsmith run -- python -m pytest`` with the same words; once."""
    if _is_watched() or os.environ.get(STARTED_VARIABLE) or config.getoption("collectonly"):
        return
    capture: Any = config.pluginmanager.getplugin("capturemanager")
    if capture is not None:
        capture.stop_global_capturing()  # gives standard output and error back before this process is replaced
    sys.stdout.flush()
    sys.stderr.flush()
    os.environ[STARTED_VARIABLE] = "1"
    os.chdir(config.invocation_params.dir)
    words = [str(word) for word in config.invocation_params.args]
    pytest_words = [sys.executable, "-m", "pytest", *words]
    os.execv(sys.executable, [sys.executable, "-m", "heapsmith", "run", "--no-summary", "--", *pytest_words])


def _read_bound(item: pytest.Item, marker: pytest.Mark, name: str) -> int | None:
    value = marker.kwargs.get(name)
    if value is None:
        return None
    try:
        return value if isinstance(value, int) else parse_bytes(str(value))
    except HeapsmithError as error:
        problem = str(error)
    # Out here: raised while another is handled, it would show that one's traceback.
    pytest.fail(f"{item.nodeid}: heap({name}={value!r}): {problem}", pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Measure a test, and fail it where it needed or left more than its marker allows."""
    marker = item.get_closest_marker("heap")
    if marker is None and not item.config.getoption("--heap"):
        return (yield)
    if marker is not None and (marker.args or set(marker.kwargs) - {"limit", "leaks"}):
        pytest.fail(f'{item.nodeid}: write heap(limit="50MiB", leaks="1MiB")', pytrace=False)
    limit = None if marker is None else _read_bound(item, marker, "limit")
    leaks = None if marker is None else _read_bound(item, marker, "leaks")
    if not _is_watched():
        if marker is None:
            return (yield)
        pytest.fail(
            "this process's heap is not counted: start pytest with `heapsmith run -- pytest`", pytrace=False
        )
    gc.collect()
    before = here.mallinfo()
    with here.peak() as peak:
        result = yield
        highest = peak.live_bytes_peak
    gc.collect()
    after = here.mallinfo()
    assert before.live_bytes is not None and after.live_bytes is not None
    rise_bytes = max(0, highest - before.live_bytes)
    left_bytes = after.live_bytes - before.live_bytes
    figures = {
        "peak_bytes": rise_bytes,
        "left_bytes": left_bytes,
        "allocations": (after.allocations or 0) - (before.allocations or 0),
        "allocated_bytes": (after.allocated_bytes or 0) - (before.allocated_bytes or 0),
    }
    item.user_properties.append((PROPERTY, figures))
    if limit is not None and rise_bytes > limit:
        pytest.fail(
            f"the test's live bytes rose by {format_bytes(rise_bytes)}, its limit is {format_bytes(limit)}",
            pytrace=False,
        )
    if leaks is not None and left_bytes > leaks:
        pytest.fail(
            f"the test left {format_bytes(left_bytes)} live, {format_bytes(leaks)} are allowed", pytrace=False
        )
    return result


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Show the table."""
    if not config.getoption("--heap"):
        return
    rows: list[tuple[int, int, int, int, str]] = []
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", None) != "call":
                continue
            for name, figures in report.user_properties:
                if name == PROPERTY:
                    peak, left = figures["peak_bytes"], figures["left_bytes"]
                    rows.append(
                        (peak, left, figures["allocations"], figures["allocated_bytes"], report.nodeid)
                    )
    terminalreporter.section("heap")
    if not rows:
        terminalreporter.write_line(
            "nothing was measured: no test ran, or the process was not watched (heapsmith run -- pytest --heap)"
        )
        return
    rows.sort(reverse=True)
    most = config.getoption("--heap-top") or len(rows)
    terminalreporter.write_line(f"{'peak':>10} {'left':>10} {'allocations':>12} {'allocated':>10}  test")
    for peak, left, allocations, allocated, test in rows[:most]:
        figures_text = f"{format_bytes(peak):>10} {format_bytes(left):>10} {format_count(allocations):>12}"
        terminalreporter.write_line(f"{figures_text} {format_bytes(allocated):>10}  {test}")
    if len(rows) > most:
        terminalreporter.write_line(f"{len(rows) - most} more (--heap-top 0 shows all)")
