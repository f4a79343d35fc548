"""How much heap can be had here: found by children that allocate until there is no more, and may die of it."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
from collections.abc import Iterator, Mapping
from typing import Final, Literal

import msgspec

from heapsmith.errors import CheckError, HeapsmithError
from heapsmith.native import LIBRARIES
from heapsmith.run.limits import Bound, LimitEffect, memory_groups, read_bounds
from heapsmith.units import GiB, KiB, MiB, format_bytes

_STEPS: Final = 128
_TIMEOUT_S: Final = 120
_REFUSED: Final = 3
_DEFAULT_LIMIT_BYTES: Final = GiB
_BLOCK_BYTES: Final = (64, KiB, 64 * KiB, MiB)

How = Literal["malloc", "realloc", "blocks"]
StoppedBy = Literal["limit of this probe", "NULL", "killed", "time"]


class Reach(msgspec.Struct, frozen=True):
    """How far one child came.

    Args:
        how: ``malloc`` (one block at a time, ever larger), ``realloc`` (one block that grows) or ``blocks`` (many, kept).
        touched: Whether it wrote to every page: untouched memory may be promised and not be there.
        block_bytes: The step, or the size of the blocks.
        reached_bytes: The largest single block, or the sum of the blocks, that was had.
        stopped_by: What ended it.
        detail: Who that was, as far as can be told.
    """

    how: How
    touched: bool
    block_bytes: int
    reached_bytes: int
    stopped_by: StoppedBy
    detail: str


def choose_limit() -> int:
    """A gibibyte, or the tightest bound where that is less: nobody's machine should swap for a question."""
    bounds = [bound for bound in read_bounds("self") if bound.effect is not LimitEffect.THROTTLE]
    return min([_DEFAULT_LIMIT_BYTES, *(bound.available_bytes for bound in bounds)])


def measure_reach(
    limit_bytes: int, step_bytes: int | None = None, environment: Mapping[str, str] | None = None
) -> Iterator[Reach]:
    """Send one child after another, and yield how far each came.

    Args:
        limit_bytes: No child goes further.
        step_bytes: By which blocks grow; a hundredth of the limit if left out.
        environment: Of the children: what preloads an allocator.

    Raises:
        HeapsmithError: The limit is too small, or the installation has no probing program.

    Example:
        >>> [reach.stopped_by for reach in measure_reach(1 << 20)][0]
        'limit of this probe'
    """
    step = step_bytes or max(4 * KiB, limit_bytes // _STEPS)
    if limit_bytes < step:
        raise HeapsmithError(
            f"a probe to {format_bytes(limit_bytes)} in steps of {format_bytes(step)} takes no step",
            hint="raise --limit or lower --step",
        )
    program = LIBRARIES / "heapsmith_reach"
    if not program.is_file():
        raise HeapsmithError("heapsmith_reach is missing", f"not in {LIBRARIES}", "install heapsmith again")
    for how in ("malloc", "realloc"):
        for touched in (True, False):
            yield _send(str(program), how, step, limit_bytes, touched, environment)
    for block_bytes in _BLOCK_BYTES:
        yield _send(str(program), "blocks", block_bytes, limit_bytes, True, environment)


def _send(
    program: str,
    how: How,
    block_bytes: int,
    limit_bytes: int,
    touched: bool,
    environment: Mapping[str, str] | None,
) -> Reach:
    kills_before = _count_kills()
    command = [program, how, str(block_bytes), str(limit_bytes), "touch" if touched else "leave"]
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, env=environment, timeout=_TIMEOUT_S, check=False
        )
        output, code = done.stdout, done.returncode
    except subprocess.TimeoutExpired as late:
        output, code = late.stdout or b"", None
    words = len(output) // 8
    reached = struct.unpack_from("<Q", output, 8 * (words - 1))[0] if words else 0
    stopped_by: StoppedBy = "limit of this probe"
    detail = format_bytes(limit_bytes)
    if code is None:
        stopped_by, detail = "time", f"after {_TIMEOUT_S} s"
    elif code == _REFUSED:
        stopped_by, detail = "NULL", _who_refuses()
    elif code < 0:
        stopped_by, detail = "killed", _who_kills(-code, kills_before)
    elif code != 0:
        raise CheckError("the probing program failed", f"exit code {code}", "try `heapsmith doctor`")
    return Reach(how, touched, block_bytes, reached, stopped_by, detail)


def _who_refuses() -> str:
    refusing = [bound for bound in read_bounds("self") if bound.effect is LimitEffect.NULL]
    if not refusing:
        return "by the allocator itself, or address space"
    tightest = min(refusing, key=_limit_of)
    return f"{tightest.place} of {format_bytes(tightest.limit_bytes)}"


def _limit_of(bound: Bound) -> int:
    return bound.limit_bytes


def _who_kills(number: int, kills_before: dict[str, int]) -> str:
    for place, kills in _count_kills().items():
        if kills > kills_before.get(place, 0):
            return f"the kernel, out of memory in {place}"
    return f"{signal.Signals(number).name}, by somebody who does not say so (the machine's OOM killer?)"


def _count_kills() -> dict[str, int]:
    return {str(group.directory): group.events().get("oom_kill", 0) for group in memory_groups(os.getpid())}
