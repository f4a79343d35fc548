"""`heapsmith forge`: make the shared object, or the header, of a heap."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

import heapsmith.forge
from heapsmith.show.forging import print_explanation, print_forged
from heapsmith.spec import load_spec


def forge(
    spec: Annotated[str, Parameter(help="A TOML spec or the name of a preset.")],
    /,
    *,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"], help="The file to write.")] = None,
    explain: Annotated[bool, Parameter(help="Print the effective heap and what it costs.", negative="")] = False,
    header: Annotated[bool, Parameter(help="Write one C++ header instead of a library.", negative="")] = False,
    target: Annotated[str, Parameter(help="Another machine, as aarch64-linux-gnu or x86_64-linux-musl.")] = "",
    debug_file: Annotated[Path | None, Parameter(help="Also keep what a debugger needs, here.")] = None,
    json: Annotated[bool, Parameter(help="Print one JSON document.", negative="")] = False,
) -> None:
    """Turn a heap's description into one shared object.

    Example: ``heapsmith forge small -o libsmall.so``
    """
    described = load_spec(spec)
    if explain:
        print_explanation(described, json=json)
    if header:
        print_forged(heapsmith.forge.write_header(described, output), json=json)
    elif output is not None or not explain:
        print_forged(heapsmith.forge.forge(described, output, target=target, debug_file=debug_file), json=json)
