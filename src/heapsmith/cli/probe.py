"""``heapsmith probe``: how much heap can be had here, found in child processes that may die."""

from __future__ import annotations

import os
from typing import Annotated

import msgspec
from cyclopts import Parameter
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn

from heapsmith.lab.field import read_field
from heapsmith.lab.reach import Reach, choose_limit, measure_reach
from heapsmith.peers.candidate import AS_IT_IS
from heapsmith.show.reach import render_reach
from heapsmith.show.terminal import print_json, print_text
from heapsmith.units import format_bytes, parse_bytes


def probe(
    *,
    limit: Annotated[
        str | None, Parameter(help="Go no further; 1GiB if left out, or what the tightest bound allows.")
    ] = None,
    step: Annotated[str | None, Parameter(help="Let single blocks grow by this.")] = None,
    allocator: Annotated[str, Parameter(help="On this allocator (see `heapsmith allocators`).")] = AS_IT_IS,
    json: Annotated[bool, Parameter(help="One JSON document on standard output.", negative="")] = False,
) -> int:
    """Find out how much heap can be had, in one block and in many, touched and untouched, and who stops it.

    Children do the work; being killed is one of the answers.

    Example: heapsmith probe --limit 64MiB
    """
    environment = read_field([allocator])[0].environment(os.environ)
    limit_bytes = choose_limit() if limit is None else parse_bytes(limit)
    step_bytes = None if step is None else parse_bytes(step)
    found = list[Reach]()
    console = Console(stderr=True)
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        task = progress.add_task(f"probing to {format_bytes(limit_bytes)}")
        for reach in measure_reach(limit_bytes, step_bytes, environment):
            found.append(reach)
            progress.update(
                task, description=f"probing to {format_bytes(limit_bytes)}: {len(found)} of 8 ways"
            )
    if json:
        document = {"schema": "heapsmith.probe/1", "allocator": allocator, "limit_bytes": limit_bytes}
        print_json(document | {"reaches": [msgspec.to_builtins(reach) for reach in found]})
    else:
        print_text(render_reach(found, allocator))
    return 0
