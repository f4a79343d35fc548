"""The trace of a run as the course's checker prints it: addresses by label, so that runs can be compared."""

from __future__ import annotations

import bisect
import signal
from collections.abc import Iterable, Sequence
from typing import Final

from heapsmith.osmem.blocks import HEAP_START, Step, SystemCall

RESULT_COLUMN: Final = 90
"""Where the ``=`` of every line stands."""
_FARTHEST_FROM_HEAP_BYTES: Final = 1 << 36  # the kernel keeps mappings farther than this from the break

_PROTECTIONS: Final = {1: "PROT_READ", 2: "PROT_WRITE", 4: "PROT_EXEC"}
_MAP_FLAGS: Final = {1: "MAP_SHARED", 2: "MAP_PRIVATE", 16: "MAP_FIXED", 32: "MAP_ANON"}


class Labels:
    """Names for addresses: ``HeapStart`` for the heap, ``<mapped-addr1>`` … in order of mmap.

    Args:
        heap_start: The break before the first operation.

    Example:
        >>> labels = Labels(0x1000_0000)
        >>> labels.name(0x1000_0018), labels.name(0)
        ('HeapStart + 0x18', '0')
    """

    def __init__(self, heap_start: int = HEAP_START) -> None:
        self._bases = [heap_start]
        self._names = {heap_start: "HeapStart"}
        self._mapped_count = 0

    def add_mapping(self, address: int) -> None:
        """Give a fresh mapping the next label; it takes over an address that was mapped before."""
        self._mapped_count += 1
        if address not in self._names:
            bisect.insort(self._bases, address)
        self._names[address] = f"<mapped-addr{self._mapped_count}>"

    def name(self, address: int) -> str:
        """Write an address as its nearest label below plus an offset."""
        if address == 0:
            return "0"
        index = bisect.bisect_right(self._bases, address) - 1
        if index < 0 or address - self._bases[index] > _FARTHEST_FROM_HEAP_BYTES:
            return f"{address:#x}"
        base = self._bases[index]
        return f"{self._names[base]} + {address - base:#x}"

    def system_call(self, call: SystemCall) -> tuple[list[str], str]:
        """Write the arguments and the result of a system call."""
        failed = -4096 < call.result < 0
        match call.name, call.arguments:
            case "brk", (address, *_):
                return [self.name(address)], self.name(call.result)
            case "mmap", (address, length, protection, flags, fd, offset):
                if not failed:
                    self.add_mapping(call.result)
                arguments = [
                    self.name(address),
                    str(length),
                    _bits(protection, _PROTECTIONS),
                    _bits(flags, _MAP_FLAGS),
                    str(fd),
                    str(offset),
                ]
                return arguments, "-1" if failed else self.name(call.result)
            case "munmap", (address, length, *_):
                return [self.name(address), str(length)], "-1" if failed else str(call.result)
            case "mremap", (address, old_length, new_length, *_):
                return [self.name(address), str(old_length), str(new_length)], (
                    "-1" if failed else self.name(call.result)
                )
            case _:
                return [], "-1" if failed else str(call.result)


def _bits(value: int, names: dict[int, str]) -> str:
    known = [name for bit, name in names.items() if value & bit]
    rest = value & ~sum(names)
    return " | ".join([*known, *([f"{rest:#x}"] if rest else [])]) or "0"


def _line(indent: str, function: str, arguments: Iterable[str], result: str) -> str:
    return f"{f'{indent}{function} ({list(arguments)})':<{RESULT_COLUMN}}= {result}"


def format_calls(steps: Sequence[Step], labels: Labels) -> list[str]:
    """Write steps, one line per call and an indented one per system call inside it.

    Args:
        steps: In order; a ``result`` of None on anything but ``os_free`` is a call that never returned.
        labels: The names of addresses; mappings are added as they come.

    Example:
        >>> from heapsmith.osmem.model import Model
        >>> for line in format_calls([Model().malloc(131040)], Labels()):
        ...     print(line[:24], line[88:])
        os_malloc (['131040'])     = HeapStart + 0x18
          brk (['0'])              = HeapStart + 0x0
          brk (['HeapStart + 0x2   = HeapStart + 0x20000
    """
    lines: list[str] = []
    for step in steps:
        # A call's own line comes first, but its result may lie in a mapping that a system call inside it
        # makes.
        arguments = [
            labels.name(value) if index == 0 and step.function in {"os_realloc", "os_free"} else str(value)
            for index, value in enumerate(step.arguments)
        ]
        inner = [_line("  ", call.name, *labels.system_call(call)) for call in step.system_calls]
        if step.result is not None:
            result = labels.name(step.result)
        else:
            result = "<void>" if step.function == "os_free" else "<unfinished ...>"
        lines += [_line("", step.function, arguments, result), *inner]
    return lines


def format_end(return_code: int | None) -> str:
    """Write how the run ended: with an exit status, by a signal (negative), or not in time (None).

    Example:
        >>> format_end(0), format_end(-11)
        ('+++ exited (status 0) +++', '+++ killed by SIGSEGV +++')
    """
    if return_code is None:
        return "+++ stopped: out of time +++"
    if return_code >= 0:
        return f"+++ exited (status {return_code}) +++"
    return f"+++ killed by {signal_name(-return_code)} +++"


def signal_name(number: int) -> str:
    """Name a signal; real-time ones by number."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def format_trace(
    steps: Sequence[Step], *, heap_start: int = HEAP_START, return_code: int | None = 0
) -> list[str]:
    """Write a whole run, its end included."""
    return [*format_calls(steps, Labels(heap_start)), format_end(return_code)]
