"""Is a replay faithful? Its resident bytes against those that the recorder saw of the real program."""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from heapsmith.errors import TraceError
from heapsmith.lab.replay.plan import choose_process
from heapsmith.lab.replay.player import Replay, play
from heapsmith.peers.candidate import Candidate
from heapsmith.trace import Operation, Trace
from heapsmith.units import KiB, MiB

FAITHFUL: Final = 0.05
_FEWEST: Final = 5
_ARENA_BYTES: Final = frozenset({256 * KiB, MiB})
"""Before CPython 3.10, and since."""


class Validation(msgspec.Struct, frozen=True, kw_only=True):
    """A replay and the run it was recorded from; bytes are anonymous resident ones.

    Args:
        allocator: What the program ran on, and the replay.
        samples: Moments that are compared.
        outside_bytes: Of the program but not of its heap (data of libraries, stacks), as the first sample shows.
        recorded_bytes_peak: The largest sample of the run, without those.
        replayed_bytes_peak: The largest at the same moments of the replay.
        ratio: Replayed over recorded peak.
        mean_error_ratio: Average distance over the recorded peak.
        faithful: Whether the peaks differ by at most 5 %.
    """

    allocator: str
    samples: int
    outside_bytes: int
    recorded_bytes_peak: int
    replayed_bytes_peak: int
    ratio: float
    mean_error_ratio: float
    faithful: bool


def validate(
    trace: Trace,
    replay: Replay,
    candidate: Candidate,
    environment: dict[str, str],
    *,
    pid: int | None,
    timeout_s: float | None,
) -> Validation:
    """Compare a replay on the recorded allocator with the run it was recorded from.

    Args:
        trace: The recording, with samples of its process's memory.
        replay: What to play.
        candidate: What the program was recorded on.
        environment: What the player gets.
        pid: Which process.
        timeout_s: After which it counts as hung.

    Raises:
        TraceError: The recording has too few samples or was made on another allocator, or the replay fails.
    """
    process = choose_process(trace, pid)
    memory = process.memory[process.memory["anonymous_bytes"] > 0]
    if len(memory) < _FEWEST:
        raise TraceError(
            f"{trace.path} cannot validate a replay", f"it has {len(memory)} looks at the process's memory",
            "record a run of some seconds",
        )  # fmt: skip
    if not has_sizes_of_glibc(trace, process.index) and candidate.library is None:
        raise TraceError(
            f"{trace.path} cannot be validated on {candidate.label}",
            "its blocks have sizes that glibc's malloc does not give: the program has another allocator",
            "name that one first, for example --allocator jemalloc",
        )
    played = play(replay, candidate, environment, timeout_s)
    if played.course is None:
        raise TraceError(f"{trace.path} cannot be replayed", played.failed or "")
    first_ns = next(int(batch.time_ns[0]) for batch in trace.batches(process.index))
    times_s = (memory["time_ns"].astype(np.int64) - first_ns) / 1e9
    # A large block is there from the call on, as the look after it shows, and filled little by little: the peak is that of
    # the look after each moment, the average goes between the two around it.
    looks = np.searchsorted(played.course.times_s, times_s)
    held = played.course.resident_bytes[np.minimum(looks, len(played.course.resident_bytes) - 1)]
    replayed = np.interp(times_s, played.course.times_s, played.course.resident_bytes)
    recorded = memory["anonymous_bytes"].astype(float) - _arena_bytes(trace, process.index, first_ns, times_s)
    outside = max(0.0, recorded[0] - replayed[0])
    recorded -= outside
    ratio = float(held.max() / recorded.max())
    return Validation(
        allocator=candidate.label,
        samples=len(memory),
        outside_bytes=int(outside),
        recorded_bytes_peak=int(recorded.max()),
        replayed_bytes_peak=int(held.max()),
        ratio=ratio,
        mean_error_ratio=float(np.abs(replayed - recorded).mean() / recorded.max()),
        faithful=abs(ratio - 1) <= FAITHFUL,
    )


def _arena_bytes(
    trace: Trace, process: int, first_ns: int, times_s: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Bytes of CPython's own arenas at some moments: mapped and filled past malloc, so they are in no replay."""
    born: dict[int, int] = {}
    moments, changes = [0.0], [0.0]
    for batch in trace.batches(process):
        for at in np.flatnonzero((batch.operation == Operation.MAP) | (batch.operation == Operation.UNMAP)):
            moment = (int(batch.time_ns[at]) - first_ns) / 1e9
            if batch.operation[at] == Operation.UNMAP:
                moments.append(moment)
                changes.append(-float(born.pop(int(batch.died[at]), 0)))
            elif int(batch.size_bytes[at]) in _ARENA_BYTES:
                born[int(batch.born[at])] = int(batch.size_bytes[at])
                moments.append(moment)
                changes.append(float(batch.size_bytes[at]))
    return np.cumsum(changes)[np.searchsorted(moments, times_s, side="right") - 1]


def has_sizes_of_glibc(trace: Trace, process: int) -> bool:
    """Tell by the usable sizes of small blocks whether a program ran on glibc's malloc; True where there are none."""
    for batch in trace.batches(process):
        of_malloc = batch.operation < Operation.MAP
        usable = batch.usable_bytes[of_malloc & (batch.usable_bytes > 0) & (batch.usable_bytes < 64 * KiB)]
        if len(usable):
            # Some blocks come out of other allocators even so (the loader's, before malloc is there).
            return float((usable % 16 == 8).mean()) > 0.5
    return True
