"""One header for people who build a heap into their own program."""

from __future__ import annotations

import re
from typing import Final

from heapsmith.forge.render import render_config
from heapsmith.native import SOURCES
from heapsmith.spec import HeapSpec

_INCLUDE: Final = re.compile(r'^\s*#\s*include\s+"([^"]+)".*$')
_USED_HEADERS: Final = ("heap/library.h",)


def render_header(spec: HeapSpec) -> str:
    """Write everything a heap is made of as one C++20 header, without needing this package.

    Returns:
        Source that defines ``heapsmith::StlAllocator``, ``heapsmith::MemoryResource`` and ``heapsmith::SpecHeap``.
    """
    done = set[str]()
    lines = [
        f'// The heap "{spec.name}" in one header, made by heapsmith. Needs C++20 and nothing else.',
        "#pragma once",
        "",
    ]
    lines += _inlined(render_config(spec), done)
    for header in _USED_HEADERS:
        lines += _inlined((SOURCES / header).read_text(), done)
    return "\n".join(lines) + "\n"


def _inlined(source: str, done: set[str]) -> list[str]:
    lines = list[str]()
    for line in source.splitlines():
        match = _INCLUDE.match(line)
        if match is None:
            if line.strip() != "#pragma once":
                lines.append(line)
        elif match[1] not in done and match[1] != "heap_config.h":
            done.add(match[1])
            lines += _inlined((SOURCES / match[1]).read_text(), done)
    return lines
