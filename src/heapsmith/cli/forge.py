"""`heapsmith forge`: make the shared object, or the header, of a heap."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter
from rich.console import Console

from heapsmith.errors import ForgeError
from heapsmith.show.forging import render_explanation, render_forged
from heapsmith.spec import load_spec


def forge(
    spec: Annotated[str, Parameter(help="A TOML spec or the name of a preset.")],
    /,
    *,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"], help="The file to write.")] = None,
    explain: Annotated[
        bool, Parameter(help="Print the effective heap and what it costs.", negative="")
    ] = False,
    header: Annotated[
        bool, Parameter(help="Write one C++ header instead of a library.", negative="")
    ] = False,
    target: Annotated[
        str, Parameter(help="Another machine, as aarch64-linux-gnu or x86_64-linux-musl.")
    ] = "",
    debug_file: Annotated[Path | None, Parameter(help="Also keep what a debugger needs, here.")] = None,
    json: Annotated[bool, Parameter(help="Print one JSON document.", negative="")] = False,
) -> None:
    """Turn a heap's description into one shared object.

    Example: heapsmith forge small -o libsmall.so
    """
    from heapsmith import forge as forging  # the verb has the name of the package

    described = load_spec(spec)
    if output is None and not explain:
        raise ForgeError(
            "there is nowhere to put it", "", "write -o LIB.so, or --explain to see what it would be"
        )
    console = Console(soft_wrap=True)
    if explain and not json:
        console.print(render_explanation(described), highlight=False, markup=False)
    if output is None:
        if json:
            print(msgspec.json.encode({"schema": "heapsmith.spec/1", "spec": described}).decode())  # noqa: T201
        return
    if header:
        made = forging.write_header(described, output)
    else:
        made = forging.forge(described, output, target=target, debug_file=debug_file)
    if json:
        print(msgspec.json.encode({"schema": "heapsmith.forge/1"} | made.document()).decode())  # noqa: T201
    else:
        console.print(render_forged(made), highlight=False, markup=False)
