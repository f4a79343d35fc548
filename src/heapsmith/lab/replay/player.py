"""Playing a plan on one candidate, in a process of its own, and what that showed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from heapsmith.errors import RunError
from heapsmith.lab.replay.plan import Plan, available_bytes
from heapsmith.native import library
from heapsmith.peers import python
from heapsmith.peers.candidate import Candidate, as_it_is
from heapsmith.run.keeper import describe_code
from heapsmith.run.outside import Watched

_COURSE_POINTS: Final = 240
_ENDED: Final = 2**64 - 1
_PLAYER: Final = "heapsmith_replay"


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """What a trial replays: a plan on disk, and what is known of its course.

    Args:
        plan: The file.
        operations: Calls it makes.
        events: Events of the recorded process, of every kind.
        own_bytes: Anonymous resident bytes of a player that has allocated nothing.
        orders: Places among the events, rising.
        times_s: When they were recorded.
        live_bytes: Requested live bytes at those places.
        live_bytes_peak: Their largest value, exact.
        objects_plan: The plan that has CPython's own objects too, for candidates with ``python=malloc``; or None.
        objects_operations: Calls that one makes.
        source: What is replayed, for people.
        speed: The pace.
    """

    plan: str
    operations: int
    events: int
    own_bytes: int
    orders: list[int]
    times_s: list[float]
    live_bytes: list[int]
    live_bytes_peak: int
    objects_plan: str | None = None
    objects_operations: int = 0
    source: str
    speed: str

    def plan_for(self, candidate: Candidate) -> tuple[str, int]:
        """Return the plan that a candidate plays, and its calls."""
        wants_objects = dict(candidate.knobs).get(python.KNOB.name) == "malloc"
        if wants_objects and self.objects_plan is not None:
            return self.objects_plan, self.objects_operations
        return self.plan, self.operations


@dataclass(frozen=True)
class Course:
    """Resident bytes of a heap along a replay.

    Attributes:
        orders: ``(n,)`` places among the events.
        times_s: ``(n,)`` when they were recorded (for a paced replay: when they were played).
        resident_bytes: ``(n,)`` of the heap alone.
    """

    orders: NDArray[np.int64]
    times_s: NDArray[np.float64]
    resident_bytes: NDArray[np.int64]

    def mean_bytes(self) -> float:
        """Average over time; over events where the trace has no times."""
        times = self.times_s if self.times_s[-1] > self.times_s[0] else self.orders.astype(float)
        if len(times) < 2 or times[-1] <= times[0]:
            return float(self.resident_bytes.mean())
        return float(np.trapezoid(self.resident_bytes, times) / (times[-1] - times[0]))


@dataclass(frozen=True)
class Played:
    """One replay.

    Attributes:
        cpu_s: Processor time of the calls, of touching what they gave, and of the page faults of both.
        system_s: How much of it was in the kernel, as far as that can be told apart.
        wall_s: From start to end, waiting for each other included.
        page_faults: Without those of the player itself.
        refused: Calls that malloc refused.
        course: Resident bytes over time.
        failed: Why it is worthless, or None; then nothing else is known.
        streamed: The plan was too large to lie in memory as a whole.
    """

    cpu_s: float
    system_s: float
    wall_s: float
    page_faults: int
    refused: int
    course: Course | None
    failed: str | None = None
    streamed: bool = False


def as_replay(plan: Plan, objects: Plan | None = None) -> Replay:
    """Measure what a player needs for itself, and make a plan ready to be sent to trials."""
    idle = _call(str(plan.path), as_it_is().environment(_without_preload(os.environ)), "--idle", timeout_s=60)
    return Replay(
        plan=str(plan.path),
        operations=plan.operations,
        events=plan.events,
        own_bytes=int(idle["anonymous_bytes"]),
        orders=plan.orders.tolist(),
        times_s=plan.times_s.tolist(),
        live_bytes=plan.live_bytes.tolist(),
        live_bytes_peak=plan.live_bytes_peak,
        objects_plan=None if objects is None else str(objects.path),
        objects_operations=0 if objects is None else objects.operations,
        source=plan.source.name,
        speed=plan.speed.text(),
    )


def play(
    replay: Replay, candidate: Candidate, environment: Mapping[str, str], timeout_s: float | None
) -> Played:
    """Play a plan on a candidate.

    Args:
        replay: What to play.
        candidate: On what.
        environment: The environment that the candidate changes.
        timeout_s: Seconds after which it counts as hung; None: never.
    """
    path, _ = replay.plan_for(candidate)
    # A plan that does not fit beside the heap is read ahead a part at a time, and given up behind.
    streams = ["--stream"] if Path(path).stat().st_size > available_bytes() // 2 else []
    try:
        told = _call(path, candidate.environment(environment), *streams, timeout_s=timeout_s)
    except RunError as error:
        return Played(0.0, 0.0, 0.0, 0, 0, None, failed=error.why)
    cpu_s = max(0, told["cpu_ns"] - told["aside_cpu_ns"]) / 1e9
    return Played(
        cpu_s=cpu_s,
        system_s=min(told["system_ns"] / 1e9, cpu_s),
        wall_s=told["wall_ns"] / 1e9,
        page_faults=told["page_faults"],
        refused=told["failures"],
        course=_course(replay, told),
        streamed=told["streamed"],
    )


def _course(replay: Replay, told: dict[str, Any]) -> Course:
    orders = np.array([min(order, replay.events) for order in told["orders"]], np.int64)
    resident = np.maximum(np.array(told["anonymous_bytes"], np.int64) - replay.own_bytes, 0)
    if replay.speed == "max":
        times = np.interp(orders, replay.orders, replay.times_s)
    else:
        times = np.array(told["sampled_ns"]) / 1e9
    return Course(orders, times, resident)


def _call(plan: str, environment: Mapping[str, str], *words: str, timeout_s: float | None) -> dict[str, Any]:
    try:
        done = subprocess.run(
            [str(library(_PLAYER)), plan, *words],
            env=dict(environment),
            capture_output=True,
            timeout=timeout_s,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise RunError("the replay hangs", f"not done after {timeout_s:.0f} s") from None
    said = done.stderr.decode(errors="replace").strip().splitlines()
    if any("cannot be preloaded" in line for line in said):
        raise RunError("the replay did not run on it", "the library cannot be preloaded")
    if done.returncode != 0:
        words_of_it = f"; it said: {said[-1][:200]}" if said else ""
        raise RunError("the replay failed", describe_code(done.returncode) + words_of_it)
    try:
        return msgspec.json.decode(done.stdout)
    except msgspec.DecodeError as error:
        raise RunError("the replay failed", f"it told nothing: {error}") from error


def _without_preload(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name != "LD_PRELOAD"}


def watched(played: Played) -> Watched:
    """Put a replay into the terms of a run that was watched from outside."""
    course = played.course
    failed = played.failed
    if failed is None and played.refused:
        failed = f"malloc refused {played.refused} calls"
    if course is None:
        return Watched(failed=failed or "it told nothing")
    chosen = np.unique(
        np.append(
            np.linspace(0, len(course.orders) - 1, _COURSE_POINTS - 1).astype(int),
            np.argmax(course.resident_bytes),
        )
    )
    return Watched(
        failed=failed,
        code=0,
        duration_s=played.wall_s,
        user_s=played.cpu_s - played.system_s,
        system_s=played.system_s,
        page_faults=played.page_faults,
        resident_bytes_peak=int(course.resident_bytes.max()),
        resident_bytes_mean=course.mean_bytes(),
        resident_bytes_end=float(course.resident_bytes[-1]),
        times_s=course.times_s[chosen].tolist(),
        resident_bytes=course.resident_bytes[chosen].tolist(),
    )
