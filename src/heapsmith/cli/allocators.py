"""`heapsmith allocators`: what is on this machine, with all knobs, and how to get what is not."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from heapsmith.peers.register import find, register
from heapsmith.show.allocators import build_allocators_document, render_allocators
from heapsmith.show.terminal import print_json, print_text


def allocators(
    *, json: Annotated[bool, Parameter(help="print one JSON document", negative="")] = False
) -> None:
    """Show the allocators of this machine: versions, knobs with range and default, and what is missing.

    Example: heapsmith allocators
    """
    found = [find(name) for name in register()]
    if json:
        print_json(build_allocators_document(found))
    else:
        print_text(render_allocators(found))
