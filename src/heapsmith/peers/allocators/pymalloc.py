"""CPython's own allocators for its objects, chosen through ``PYTHONMALLOC``; malloc below stays."""

from __future__ import annotations

from typing import Final

from heapsmith.peers import python
from heapsmith.peers.allocator import Allocator, Values, Variables, tells
from heapsmith.peers.knobs import Version


def _switch(name: str, title: str, note: str) -> Allocator:
    def spell(values: Values, version: Version | None) -> Variables:
        return {python.VARIABLE: name.removeprefix("py") if name != "pymalloc" else name}

    return Allocator(
        name=name,
        title=title,
        identified_by="glibc",
        variables=(python.VARIABLE,),
        spell=spell,
        knobs=(),
        fields=tells(),
        note=note,
        python_only=True,
    )


ALLOCATORS: Final = (
    _switch("pymalloc", "CPython pymalloc", "the default of CPython for blocks up to 512 bytes"),
    _switch("pymimalloc", "CPython's own mimalloc", "needs CPython 3.13 or later"),
)
