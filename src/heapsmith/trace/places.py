"""Stacks as people read them: frames with names, one tree of them for all processes and files, and whose they are."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from heapsmith.trace.reader import Trace

Owner = Literal["own", "library", "runtime"]
"""Whose code a frame is: the program's, a library's, or that of allocator, C library and interpreter."""


@dataclass(frozen=True, slots=True)
class Label:
    """A frame by name; what is unknown is None.

    Example:
        >>> Label("grow", "demo.py", 12).text
        'grow (demo.py:12)'
        >>> Label("lib.so+0x1234", module="/usr/lib/lib.so", is_named=False).text
        'lib.so+0x1234'
    """

    function: str
    file: str | None = None
    line: int | None = None
    module: str | None = None
    is_python: bool = False
    is_named: bool = True
    """False where the name is only module and offset, or an address."""

    @property
    def text(self) -> str:
        """As ``function (file:line)``, with as much of it as is known."""
        if self.file is None:
            if self.module is None or not self.is_named:
                return self.function
            return f"{self.function} ({self.module.rpartition('/')[2]})"
        return f"{self.function} ({self.file}{'' if self.line is None else f':{self.line}'})"

    @property
    def place(self) -> str:
        """As ``file:line`` with the file's last two parts, or what else tells the place."""
        if self.file is None:
            return self.module.rpartition("/")[2] if self.module else "?"
        short = "/".join(self.file.split("/")[-2:])
        return short if self.line is None else f"{short}:{self.line}"


NO_STACK: Final = Label("(no stack was recorded)", is_named=False)
NameFrames = Callable[[Trace, Sequence[int]], dict[int, tuple[Label, ...]]]
"""Answers for each frame its labels: inlined functions first."""

_RUNTIME_MODULE: Final = re.compile(
    r"(^|/)(ld-linux[^/]*|ld-musl[^/]*|lib(c|m|dl|rt|pthread|stdc\+\+|c\+\+|c\+\+abi|gcc_s|python[0-9.]+t?|"
    r"heapsmith[^/]*|jemalloc|tcmalloc[^/]*|mimalloc[^/]*)(-[0-9.]+)?\.so[^/]*|python[0-9.]*t?|linux-vdso[^/]*|\[vdso\])$"
)
_RUNTIME_FILE: Final = re.compile(
    r"(^|/)(c\+\+/[0-9.]+/|bits/|ext/|csu/|sysdeps/|malloc/|nptl/|libio/|Objects/|Python/|Parser/|Include/|Modules/)"
)
_RUNTIME_FUNCTION: Final = re.compile(
    r"^(_*(libc_)?(malloc|calloc|realloc|free|memalign|aligned_alloc|posix_memalign|valloc|pvalloc|mmap|mremap)(64)?"
    r"|operator new.*|_start|__libc_start_.*|start_thread|clone3?|(std|__gnu_cxx)::.*|void std::.*|_?Py[A-Z_].*"
    r"|_*PyObject_.*)$"
)
_LIBRARY_PYTHON: Final = re.compile(
    r"(^|/)(site-packages|dist-packages)/|(^|/)lib/python[0-9.]+t?/|^<frozen |^<__array_function__|^/usr/lib/"
)
_LIBRARY_MODULE: Final = re.compile(
    r"^(/usr)?/lib(32|64|exec)?/|(^|/)(site-packages|dist-packages|lib-dynload)/"
)


def judge_owner(label: Label) -> Owner:
    """Tell whose code a frame is, by its path and name.

    Example:
        >>> judge_owner(Label("load", "/srv/app/service.py", 3, is_python=True))
        'own'
        >>> judge_owner(Label("loads", "/usr/lib/python3.11/json/__init__.py", 346, is_python=True))
        'library'
        >>> judge_owner(Label("malloc", module="/lib/x86_64-linux-gnu/libc.so.6"))
        'runtime'
    """
    if label.is_python:
        return "library" if _LIBRARY_PYTHON.search(label.file or "") else "own"
    if not label.is_named and label.module is None:
        return "runtime"
    if label.module is not None and _RUNTIME_MODULE.search(label.module):
        return "runtime"
    if _RUNTIME_FUNCTION.match(label.function) or (label.file and _RUNTIME_FILE.search(label.file)):
        return "runtime"
    if label.module is not None and _LIBRARY_MODULE.search(label.module):
        return "library"
    return "own"


@dataclass(slots=True)
class Forest:
    """Stacks of named frames as one tree: equal paths of names are one node, whatever process or file they are from.

    Node 0 is the root. A node's parent has a smaller number.
    """

    labels: list[Label] = field(default_factory=lambda: [Label("all", is_named=False)])
    parents: list[int] = field(default_factory=lambda: [0])
    label_of: list[int] = field(default_factory=lambda: [0])
    _label_numbers: dict[Label, int] = field(default_factory=dict[Label, int])
    _nodes: dict[tuple[int, int], int] = field(default_factory=dict[tuple[int, int], int])
    _owners: dict[int, Owner] = field(default_factory=dict[int, Owner])
    _own_of: list[int] = field(default_factory=lambda: [0])
    """For each node the innermost of the program's own frames on its way to the root; 0: there is none."""
    _library_of: list[int] = field(default_factory=lambda: [0])

    def add_trace(self, trace: Trace, stacks: Iterable[int], name_frames: NameFrames) -> NDArray[np.int64]:
        """Add stacks of a trace.

        Args:
            trace: Where they are from.
            stacks: Their numbers.
            name_frames: Gives their frames names.

        Returns:
            Shape (number of stacks of the trace,): the node of each stack that was asked for and of its callers, else -1.
        """
        table = trace.stacks
        total = len(table)
        parents = table["parent"].astype(np.int64)
        frames = table["frame"].astype(np.int64)
        numbers = np.arange(total)
        wrong = (parents >= numbers) & (numbers > 0)  # no writer makes them, and they would be loops
        parents[wrong] = 0
        frames[(frames >= len(trace.frames)) | (frames < 0)] = 0
        wanted = np.zeros(total, np.bool_)
        asked = np.unique(np.fromiter(stacks, np.int64))
        wanted[asked[(asked >= 0) & (asked < total)]] = True
        level = np.flatnonzero(wanted)
        while len(level):
            level = np.unique(parents[level])
            level = level[~wanted[level]]
            wanted[level] = True
        used = np.flatnonzero(wanted)
        used = used[used > 0]
        names = name_frames(trace, np.unique(frames[used]).tolist())
        label_numbers = {
            frame: [self._number(label) for label in reversed(labels)] for frame, labels in names.items()
        }
        unknown = [self._number(Label("?", is_named=False))]
        node_of = np.full(total, -1, np.int64)
        node_of[0] = 0
        nodes, add = self._nodes, self._add
        placed: dict[int, int] = {0: 0}
        for stack, parent, frame in zip(
            used.tolist(), parents[used].tolist(), frames[used].tolist(), strict=True
        ):
            node = placed[parent]
            for label in label_numbers.get(frame, unknown):
                child = nodes.get((node, label))
                node = add(node, label) if child is None else child
            placed[stack] = node
        if placed:
            keys = np.fromiter(placed.keys(), np.int64, len(placed))
            node_of[keys] = np.fromiter(placed.values(), np.int64, len(placed))
        node_of[0] = self._child(0, self._number(NO_STACK)) if wanted[0] else -1
        return node_of

    def path(self, node: int) -> list[Label]:
        """The labels of a node, innermost frame first."""
        found: list[Label] = []
        while node:
            found.append(self.labels[self.label_of[node]])
            node = self.parents[node]
        return found

    def owner(self, label: int) -> Owner:
        """Whose code a label is."""
        known = self._owners.get(label)
        if known is None:
            known = self._owners[label] = judge_owner(self.labels[label])
        return known

    def owner_of(self, label: Label) -> Owner:
        """Whose code a label is that is in the tree."""
        return self.owner(self._label_numbers[label]) if label in self._label_numbers else judge_owner(label)

    def site(self, node: int) -> int:
        """The node that tells most of a stack: the innermost frame of the program's own code, else of a library.

        Returns:
            A node on the way from `node` to the root.
        """
        own, library = self._own_of, self._library_of
        for at in range(len(own), len(self.parents)):
            parent, label = self.parents[at], self.label_of[at]
            owner = self.owner(label)
            own.append(at if owner == "own" and self.labels[label].is_named else own[parent])
            library.append(at if owner == "library" else library[parent])
        return own[node] or library[node] or node

    def include(self, own: NDArray[np.float64]) -> NDArray[np.float64]:
        """Add to each node what the nodes below it hold.

        Args:
            own: Shape (n_nodes,).
        """
        total = own.copy()
        for node, parent in zip(reversed(range(1, len(total))), reversed(self.parents[1:]), strict=True):
            total[parent] += total[node]
        return total

    def _number(self, label: Label) -> int:
        number = self._label_numbers.get(label)
        if number is None:
            number = self._label_numbers[label] = len(self.labels)
            self.labels.append(label)
        return number

    def _child(self, node: int, label: int) -> int:
        child = self._nodes.get((node, label))
        return self._add(node, label) if child is None else child

    def _add(self, node: int, label: int) -> int:
        child = self._nodes[(node, label)] = len(self.parents)
        self.parents.append(node)
        self.label_of.append(label)
        return child
