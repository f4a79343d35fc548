"""Stacks as people read them: frames with names, one tree of them for all processes and files, and whose they are."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
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
    r"|(x|xx|z|g_|safe_?|Perl_safesys|sqlite3(Mem)?)(m|M|c|re|Re|z)?alloc(0|_n|array|_usable)?|xstrn?dup|xmemdup"
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


def with_callers(parents: NDArray[np.int64], chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Add to the chosen nodes of a tree all that lie between them and the root, and the root.

    Args:
        parents: Shape (n,); a parent has a smaller number.
        chosen: Shape (n,).
    """
    from heapsmith.trace.kernel import include

    below = chosen.astype(np.float64)[:, None]
    include(parents, below)
    return below[:, 0] > 0


@dataclass(slots=True)
class Forest:
    """Stacks of named frames as one tree: equal paths of names are one node, whatever process or file they are from.

    Node 0 is the root. A node's parent has a smaller number.
    """

    labels: list[Label] = field(default_factory=lambda: [Label("all", is_named=False)])
    parents: list[int] = field(default_factory=lambda: [0])
    label_of: list[int] = field(default_factory=lambda: [0])
    _label_numbers: dict[Label, int] = field(default_factory=dict[Label, int])
    _nodes: dict[int, int] = field(default_factory=dict[int, int])
    """By node and label, in one number."""
    _owners: dict[int, Owner] = field(default_factory=dict[int, Owner])

    def add_trace(
        self, trace: Trace, stacks: NDArray[np.int64], name_frames: NameFrames
    ) -> NDArray[np.int64]:
        """Add stacks of a trace.

        Args:
            trace: Where they are from.
            stacks: Their numbers, shape (n,).
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
        wanted[stacks[(stacks >= 0) & (stacks < total)]] = True
        used = np.flatnonzero(with_callers(parents, wanted))
        used = used[used > 0]
        names = name_frames(trace, np.unique(frames[used]).tolist())
        label_numbers = {
            frame: [self._number(label) for label in reversed(labels)] for frame, labels in names.items()
        }
        unknown = [self._number(Label("?", is_named=False))]
        node_of = np.full(total, -1, np.int64)
        node_of[0] = 0
        nodes, grown_parents, grown_labels = self._nodes, self.parents, self.label_of
        placed = [0] * total
        rows: tuple[list[int], list[int], list[int]] = (
            used.tolist(),
            parents[used].tolist(),
            frames[used].tolist(),
        )
        for stack, parent, frame in zip(*rows, strict=True):
            node = placed[parent]
            for label in label_numbers.get(frame, unknown):
                key = node << 32 | label
                child = nodes.get(key)
                if child is None:
                    child = nodes[key] = len(grown_parents)
                    grown_parents.append(node)
                    grown_labels.append(label)
                node = child
            placed[stack] = node
        node_of[used] = np.array(placed, np.int64)[used]
        node_of[0] = self._child(0, self._number(NO_STACK)) if wanted[0] else -1
        return node_of

    def path(self, node: int) -> list[Label]:
        """The labels of a node, innermost frame first."""
        return [self.labels[number] for number in self.path_numbers(node)]

    def path_numbers(self, node: int) -> list[int]:
        """The numbers of a node's labels, innermost frame first."""
        found: list[int] = []
        while node:
            found.append(self.label_of[node])
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

    def sites(self) -> NDArray[np.int64]:
        """For each node the one that tells most of its stack: the innermost of the program's own code, else of a library.

        Returns:
            Shape (n_nodes,): nodes on the way to the root; the node itself where neither is there.
        """
        labels = np.array(self.label_of, np.int64)
        nodes = np.arange(len(labels))
        owners = [self.owner(number) for number in range(len(self.labels))]
        is_own = [owner == "own" and label.is_named for owner, label in zip(owners, self.labels, strict=True)]
        own = self.inherit(np.where(np.array(is_own)[labels], nodes, 0))
        library = self.inherit(np.where(np.array([owner == "library" for owner in owners])[labels], nodes, 0))
        return np.where(own > 0, own, np.where(library > 0, library, nodes))

    def inherit(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        """Give each node that has no value that of the nearest node above it which has one.

        Args:
            values: Shape (n_nodes,); 0: none.

        Example:
            >>> forest = Forest()
            >>> forest._child(0, 0), forest._child(1, 0)
            (1, 2)
            >>> forest.inherit(np.array([0, 7, 0])).tolist()
            [0, 7, 7]
        """
        found = values.copy()
        above = np.array(self.parents, np.int64)
        # Each round looks twice as far up as the one before.
        open_nodes = np.flatnonzero(found == 0)
        while len(open_nodes):
            found[open_nodes] = found[above[open_nodes]]
            open_nodes = open_nodes[(found[open_nodes] == 0) & (above[open_nodes] > 0)]
            above[open_nodes] = above[above[open_nodes]]
        return found

    def _number(self, label: Label) -> int:
        number = self._label_numbers.get(label)
        if number is None:
            number = self._label_numbers[label] = len(self.labels)
            self.labels.append(label)
        return number

    def _child(self, node: int, label: int) -> int:
        key = node << 32 | label
        child = self._nodes.get(key)
        if child is None:
            child = self._nodes[key] = len(self.parents)
            self.parents.append(node)
            self.label_of.append(label)
        return child
