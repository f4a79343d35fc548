"""A candidate: an allocator with its knobs set, ready to start a program on.

Written ``NAME``, ``NAME:knob=value,knob=value`` or ``/path/to/LIB.so:knob=value``; ``system`` is the program
as it is started today, its own environment untouched.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from heapsmith.errors import HeapsmithError
from heapsmith.peers import python
from heapsmith.peers.allocator import Allocator, Values, Variables
from heapsmith.peers.allocators import heapsmith
from heapsmith.peers.identify import identify
from heapsmith.peers.knobs import Knob, Value, Version
from heapsmith.peers.preload import preload_words
from heapsmith.peers.register import Found, find, register

AS_IT_IS: Final = "system"
_NEWEST_MIMALLOC: Final = "mimalloc"
_PRELOAD: Final = "LD_PRELOAD"
_TUNABLES: Final = "GLIBC_TUNABLES"
_HEAP_TUNABLES: Final = "glibc.malloc."


class Candidate(msgspec.Struct, frozen=True):
    """One way to start a program.

    Args:
        label: How people write it, knobs in the allocator's order: equal labels are equal candidates.
        allocator: The name in the register, of a forged heap or library, or ``system``.
        library: The library to preload, or None.
        knobs: The knobs that are set, as written.
        variables: What the environment gets besides ``LD_PRELOAD``.
        changes_nothing: The program as it is started today.
        version: The allocator's version in its own words, or None.
    """

    label: str
    allocator: str
    library: str | None = None
    knobs: tuple[tuple[str, Value], ...] = ()
    variables: tuple[tuple[str, str], ...] = ()
    changes_nothing: bool = False
    version: str | None = None

    def environment(self, base: Mapping[str, str]) -> Variables:
        """Return the environment of a program started on this candidate.

        Args:
            base: The environment the program would have had. Other allocators' libraries and variables are taken
                out of it, everything else stays; so does who serves CPython's own objects, which goes together with any
                allocator.

        Example:
            >>> read_candidate("glibc:arena_max=1").environment({"LANG": "C"})
            {'LANG': 'C', 'GLIBC_TUNABLES': 'glibc.malloc.arena_max=1'}
        """
        if self.changes_nothing:
            return dict(base)
        owned = {variable for allocator in register().values() for variable in allocator.variables}
        owned.discard(python.VARIABLE)
        result = {name: value for name, value in base.items() if name not in owned and name != _PRELOAD}
        kept = [tunable for tunable in base.get(_TUNABLES, "").split(":") if tunable]
        kept = [tunable for tunable in kept if not tunable.startswith(_HEAP_TUNABLES)]
        result.update(self.variables)
        if kept:
            result[_TUNABLES] = ":".join([*kept, *filter(None, [result.get(_TUNABLES, "")])])
        preload = [
            item for item in base.get(_PRELOAD, "").replace(":", " ").split() if not _is_allocator(item)
        ]
        if self.library is not None:
            preload = preload_words(Path(self.library)) + preload
        if preload:
            result[_PRELOAD] = ":".join(preload)
        return result

    def lines(self) -> Variables:
        """Return only what has to be added to an environment that has nothing of the kind."""
        return self.environment({})


def _is_allocator(library: str) -> bool:
    name = Path(library).name
    patterns = (pattern for allocator in register().values() for pattern in allocator.libraries)
    return any(Path(name).match(pattern) for pattern in patterns)


def as_it_is() -> Candidate:
    """Return the candidate that changes nothing: the baseline of every comparison."""
    return Candidate(AS_IT_IS, AS_IT_IS, changes_nothing=True)


def make_candidate(
    found: Found, knobs: Iterable[tuple[str, Value]] = (), python_objects: str | None = None
) -> Candidate:
    """Make a candidate of an allocator that is here.

    Args:
        found: The allocator as found on this machine.
        knobs: Values of its knobs, already in range.
        python_objects: The value of the `python` knob, or None to leave it alone.
    """
    allocator = found.allocator
    values = dict(knobs)
    ordered = [(knob.name, values[knob.name]) for knob in allocator.knobs if knob.name in values]
    variables = allocator.spell(dict(ordered), found.version_numbers)
    written = [f"{name}={_knob_of(allocator, name).write(value)}" for name, value in ordered]
    if python_objects is not None:
        variables = variables | {python.VARIABLE: python_objects}
        ordered.append((python.KNOB.name, python_objects))
        written.append(f"{python.KNOB.name}={python_objects}")
    name = allocator.name
    return Candidate(
        label=name + (":" + ",".join(written) if written else ""),
        allocator=name,
        library=None if found.path is None else str(found.path),
        knobs=tuple(ordered),
        variables=tuple(variables.items()),
        version=found.version,
    )


def _knob_of(allocator: Allocator, name: str) -> Knob:
    knob = allocator.knob(name)
    assert knob is not None, name
    return knob


class Elsewhere(msgspec.Struct, frozen=True):
    """Heaps that are not in the register, and how each becomes a library.

    Args:
        names: What people call them.
        endings: What the names of files end with that describe one.
        library: Makes or finds the library; says with a HeapsmithError why it cannot.
    """

    names: tuple[str, ...] = ()
    endings: tuple[str, ...] = ()
    library: Callable[[str], Path] = Path

    def knows(self, name: str) -> bool:
        """Whether a name is one of these."""
        return name in self.names or name.endswith(self.endings)


_NOWHERE: Final = Elsewhere()


def read_candidates(texts: Iterable[str], elsewhere: Elsewhere = _NOWHERE) -> list[Candidate]:
    """Read all candidates, and report all that is wrong with any of them at once.

    Args:
        texts: As people write them.
        elsewhere: Further heaps that may be named.

    Raises:
        HeapsmithError: At least one text names an allocator that is unknown or not here, or a knob that it does not
            have or a value out of its range; the nearest names are suggested.

    Example:
        >>> [candidate.label for candidate in read_candidates(["system", "glibc:arena_max=2"])]
        ['system', 'glibc:arena_max=2']
    """
    candidates: list[Candidate] = []
    problems: list[str] = []
    for text in texts:
        candidate = _read(text, problems, elsewhere)
        if candidate is not None:
            candidates.append(_told_apart(candidate, candidates))
    if problems:
        raise HeapsmithError(
            "; ".join(problems), hint="`heapsmith allocators` shows what is here, with all knobs"
        )
    return candidates


def _told_apart(candidate: Candidate, others: Iterable[Candidate]) -> Candidate:
    """Give a candidate that is there already another label: compared with itself, it shows the noise."""
    same = sum(other.label.partition(" #")[0] == candidate.label for other in others)
    return msgspec.structs.replace(candidate, label=f"{candidate.label} #{same + 1}") if same else candidate


def read_candidate(text: str) -> Candidate:
    """Read one candidate; see `read_candidates`."""
    return read_candidates([text])[0]


def _split(text: str) -> tuple[str, str]:
    """Part an allocator from its knobs; the path of a file that is there may have colons of its own."""
    if "/" in text:
        path, _, settings = text.rpartition(":")
        for whole, rest in ((text, ""), (path, settings)):
            if path and Path(whole).is_file():
                return whole, rest
    name, _, settings = text.partition(":")
    return name, settings


def _read(text: str, problems: list[str], elsewhere: Elsewhere) -> Candidate | None:
    name, settings = _split(text.strip())
    if name == AS_IT_IS:
        if settings:
            problems.append(f"`{AS_IT_IS}` is the program as it is started today and takes no knobs")
        return as_it_is()
    found = _find(name, problems, elsewhere)
    if found is None:
        return None
    before = len(problems)
    values, python_objects = _read_knobs(found, settings, problems)
    return make_candidate(found, values, python_objects) if len(problems) == before else None


def _find(name: str, problems: list[str], elsewhere: Elsewhere) -> Found | None:
    if elsewhere.knows(name):
        return _find_elsewhere(name, problems, elsewhere)
    if "/" in name or name.endswith(".so"):
        return _find_library(Path(name), problems)
    known = register()
    if name == _NEWEST_MIMALLOC:
        name = next((line for line in ("mimalloc3", "mimalloc2") if find(line).here), "mimalloc2")
    if name not in known:
        every = [AS_IT_IS, *known, *elsewhere.names, _NEWEST_MIMALLOC]
        near = difflib.get_close_matches(name, every, n=1)
        hint = f", did you mean `{near[0]}`?" if near else f" (there are {', '.join(every)})"
        problems.append(f"there is no allocator {name!r}{hint}")
        return None
    found = find(name)
    if not found.here:
        problems.append(f"{name} is not on this machine: {found.problem or known[name].how_to_get()}")
        return None
    return found


def _find_elsewhere(name: str, problems: list[str], elsewhere: Elsewhere) -> Found | None:
    try:
        path = elsewhere.library(name)
    except HeapsmithError as error:
        problems.append(str(error))
        return None
    found = _find_library(path, problems)
    if found is None:
        return None
    return msgspec.structs.replace(found, allocator=msgspec.structs.replace(found.allocator, name=name))


def _find_library(path: Path, problems: list[str]) -> Found | None:
    if not path.is_file():
        problems.append(f"{path} is not a file")
        return None
    path = path.absolute()
    identity = identify(path)
    if identity.problem is not None:
        problems.append(f"no program can be started on {path}: {identity.problem}")
        return None
    peer = register().get(identity.name) if identity.name else None
    if peer is None and identity.name is not None and identity.name.startswith(heapsmith.NAME):
        peer = heapsmith.forged(str(path))
    elif peer is None:
        peer = Allocator(
            name=str(path), title=path.name, identified_by="", spell=_spell_nothing, knobs=(), fields={}
        )
    else:
        peer = msgspec.structs.replace(peer, name=str(path))
    return Found(
        peer, here=True, path=path, version=identity.version, version_numbers=identity.version_numbers
    )


def _spell_nothing(values: Values, version: Version | None) -> Variables:
    return {}


def _read_knobs(
    found: Found, settings: str, problems: list[str]
) -> tuple[list[tuple[str, Value]], str | None]:
    values: dict[str, Value] = {}
    python_objects: str | None = None
    allocator = found.allocator
    for setting in filter(None, (part.strip() for part in settings.split(","))):
        name, equals, written = (part.strip() for part in setting.partition("="))
        if not equals:
            problems.append(f"{allocator.name}: {setting!r} has no value (write knob=value)")
            continue
        knob = python.KNOB if name == python.KNOB.name and not allocator.python_only else allocator.knob(name)
        if knob is None:
            problems.append(_unknown_knob(allocator, name))
            continue
        if not knob.known_in(found.version_numbers):
            problems.append(f"{allocator.name} {found.version} does not know {name} ({_known_when(knob)})")
            continue
        try:
            value = knob.read(written)
        except HeapsmithError as error:
            problems.append(f"{allocator.name}: {error}")
            continue
        if name in values or (knob is python.KNOB and python_objects is not None):
            problems.append(f"{allocator.name}: {name} is given twice")
        elif knob is python.KNOB:
            python_objects = str(value)
        else:
            values[name] = value
    return list(values.items()), python_objects


def _unknown_knob(allocator: Allocator, name: str) -> str:
    names = [knob.name for knob in allocator.knobs]
    if not allocator.python_only:
        names.append(python.KNOB.name)
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f"{allocator.name} has no knob {name!r}, did you mean `{near[0]}`?"
    return f"{allocator.name} has no knob {name!r} (it has {', '.join(names) or 'none'})"


def _known_when(knob: Knob) -> str:
    def written(version: Version) -> str:
        return ".".join(map(str, version))

    since = f"since {written(knob.since)}" if knob.since else ""
    before = f"until before {written(knob.before)}" if knob.before else ""
    return " ".join(filter(None, (since, before)))
