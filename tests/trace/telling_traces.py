"""A trace with one of everything that a report should find, for the tests of every view."""

from __future__ import annotations

from pathlib import Path

from told_lives import MadeProcess, write_made

from heapsmith.trace import Drops, Mark

PLACES = (
    ("main", "/srv/app/service.py", 60),
    ("handle", "/srv/app/service.py", 41),
    ("remember", "/srv/app/service.py", 17),
    ("loads", "/usr/lib/python3.11/json/__init__.py", 346),
    ("decode", "/usr/lib/python3.11/json/decoder.py", 337),
    ("load_all", "/srv/app/batch.py", 88),
    ("join_lines", "/srv/app/text.py", 9),
    ("_find_and_load", "<frozen importlib._bootstrap>", 1176),
)
PARENTS = (0, 1, 2, 2, 4, 1, 2, 1)
LEAKED_BYTES = 2000 * 500
CACHED_BYTES = 50 * 2000


def write_service(path: Path, *, leak_bytes: int = 500, spike_blocks: int = 24, drops: int = 0) -> Path:
    """A service that leaks at service.py:17, peaks at batch.py:88 and makes temporary blocks at text.py:9."""
    made = MadeProcess(pid=4242, name="service")
    for _ in range(50):
        made.allocate(2000, 8)
    big: list[int] = []
    for turn in range(2000):
        made.allocate(leak_bytes, 3)
        made.free(made.allocate(3000, 5))
        for _ in range(6):
            made.free(made.allocate(80, 7, thread=1), thread=1)
        if turn == 1200:
            big = [made.allocate(1 << 20, 6) for _ in range(spike_blocks)]
        if turn == 1300:
            for number in big:
                made.free(number)
    worker = MadeProcess(pid=4250, name="worker")
    for _ in range(100):
        worker.free(worker.allocate(300, 5), after_ns=50_000)
    memory = [(at * 300_000, 20_000_000, 18_000_000, 10) for at in range(0, 100, 2)]
    lost = [Drops(events=drops, since_ns=5_000_000, until_ns=6_000_000, reason="full ring")] if drops else []
    return write_made(
        path, [made, worker], PLACES, parents=PARENTS, batch=5000, memory=memory, drops=lost,
        marks=[Mark(time_ns=2_000_000, name="warmed up")],
    )  # fmt: skip
