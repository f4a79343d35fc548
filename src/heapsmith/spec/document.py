"""Specs as TOML documents: read with all problems at once, written back as they are.

name = "web"
[sizes]
policy = "Geometric"
largest_bytes = "32KiB"
[[pages]]
policy = "OsPages"
[[pages]]
policy = "PurgeAfter"
delay_ms = 10
"""

from __future__ import annotations

import difflib
import tomllib
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast, get_args, get_origin, get_type_hints

import msgspec

from heapsmith.errors import HeapsmithError, SpecError
from heapsmith.spec.heap import SLOTS, HeapSpec, Problem, as_pipe, problems_of
from heapsmith.spec.policies import CACHES, HARDENING, LOCKS, PAGES, REMOTES, SIZES, ForThread, Policy
from heapsmith.units import parse_bytes, parse_seconds

PRESET_DIRECTORY: Final = Path(__file__).resolve().parent / "presets"
_POLICIES_OF: Final[Mapping[str, Sequence[type[Policy]]]] = {
    "sizes": SIZES,
    "cache": CACHES,
    "remote": REMOTES,
    "pages": PAGES,
    "lock": LOCKS,
    "hardening": HARDENING,
    "threads": (ForThread,),
}
_LISTS: Final = ("pages", "hardening", "threads")


def presets() -> list[str]:
    """Return the names of the heaps that come with heapsmith.

    Example:
        >>> "default" in presets()
        True
    """
    return sorted(path.stem for path in PRESET_DIRECTORY.glob("*.toml"))


def load_spec(source: str | Path) -> HeapSpec:
    """Read a spec from a TOML file, or a preset by its name.

    Args:
        source: A path that ends in ``.toml``, or the name of a preset.

    Raises:
        SpecError: There is no such file or preset, or the heap it describes cannot work (all problems at once).

    Example:
        >>> load_spec("pow2").sizes.class_bytes()[:3]
        [16, 32, 64]
    """
    path = Path(source)
    if str(source) in presets():
        path = PRESET_DIRECTORY / f"{source}.toml"
    elif path.suffix != ".toml":
        near = difflib.get_close_matches(str(source), presets(), n=1)
        hint = (
            f"did you mean `{near[0]}`?"
            if near
            else f"presets are {', '.join(presets())}; a spec ends in .toml"
        )
        raise SpecError(f"{source} is no heap", "neither a preset nor a TOML file", hint)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise SpecError(f"cannot read {path}", str(why)) from error
    return read_document(text, str(path))


def read_document(text: str, where: str = "the document") -> HeapSpec:
    r"""Make a spec of the text of a TOML document.

    Raises:
        SpecError: It is not TOML, or the heap it describes cannot work; every problem is named.

    Example:
        >>> read_document('[sizes]\npolicy = "PowersOfTwo"').sizes.largest_bytes
        32768
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"cannot read {where}", f"it is not TOML: {error}") from error
    found = list[Problem]()
    values = dict[str, Any]()
    for key, value in document.items():
        if key == "name":
            if isinstance(value, str):
                values["name"] = value
            else:
                found.append(Problem("name", f"is {value!r}", "use a text"))
        elif key in _LISTS:
            policies = _read_list(key, value, found)
            if policies is not None:
                values[key] = as_pipe(policies) if key == "pages" else tuple(policies)
        elif key in SLOTS:
            policy = _read_policy(key, key, value, found)
            if policy is not None:
                values[key] = policy
        else:
            found.append(_unknown(key, ("name", *SLOTS)))
    # What could be read is judged together with what could not: all problems in one go.
    found += problems_of({"name": "unnamed"} | values)
    if found:
        raise SpecError(f"{where} describes a heap that cannot work", "; ".join(map(str, found)))
    return HeapSpec(**values)


def write_document(spec: HeapSpec) -> str:
    """Write a spec as a TOML document that reads back as the same value.

    Example:
        >>> read_document(write_document(HeapSpec(name="same"))) == HeapSpec(name="same")
        True
    """
    lines = [f'name = "{spec.name}"']
    for slot in SLOTS:
        value = getattr(spec, slot)
        policies: Sequence[Policy] = (
            value.stages if slot == "pages" else value if slot in _LISTS else (value,)
        )
        for policy in policies:
            several = slot in _LISTS
            lines += ["", f"[[{slot}]]" if several else f"[{slot}]", f'policy = "{type(policy).__name__}"']
            for name in policy.__struct_fields__:
                value = getattr(policy, name)
                lines.append(f"{name} = {_written(value)}")
    return "\n".join(lines) + "\n"


def _written(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, bool):
        return str(value).lower()
    return str(list(cast("tuple[int, ...]", value))) if isinstance(value, tuple) else str(value)


def _read_list(slot: str, value: object, found: list[Problem]) -> list[Any] | None:
    if not isinstance(value, list):
        found.append(Problem(slot, "is no list", f"write [[{slot}]] before each policy"))
        return None
    entries = cast("list[object]", value)
    policies = [_read_policy(slot, f"{slot}[{number}]", entry, found) for number, entry in enumerate(entries)]
    return None if any(policy is None for policy in policies) else list(policies)


def _read_policy(slot: str, field: str, value: object, found: list[Problem]) -> Policy | None:
    known = {policy.__name__: policy for policy in _POLICIES_OF[slot]}
    if isinstance(value, str):
        value = {"policy": value}
    if not isinstance(value, dict):
        found.append(
            Problem(field, f"is {value!r}", f'write [{slot}] and below it policy = "{next(iter(known))}"')
        )
        return None
    table = dict(cast("dict[str, Any]", value))
    name = table.pop("policy", next(iter(known)) if len(known) == 1 else None)
    if name not in known:
        near = difflib.get_close_matches(str(name), known, n=1)
        remedy = f"did you mean {near[0]}?" if near else f"use {', '.join(known)}"
        found.append(Problem(f"{field}.policy", "is missing" if name is None else f"is {name!r}", remedy))
        return None
    policy = known[name]
    hints = get_type_hints(policy)
    arguments = dict[str, Any]()
    complete = True
    for key, entry in table.items():
        if key not in policy.__struct_fields__:
            unknown = _unknown(key, policy.__struct_fields__)
            found.append(Problem(f"{field}.{unknown.field}", unknown.why, unknown.remedy))
            complete = False
            continue
        try:
            arguments[key] = _convert(key, entry, hints[key])
        except HeapsmithError as error:
            found.append(Problem(f"{field}.{key}", f"is {entry!r}", str(error)))
            complete = False
    for member in msgspec.structs.fields(policy):
        if member.required and member.name not in table:
            found.append(Problem(f"{field}.{member.name}", "is missing", f"{name} needs it"))
            complete = False
    return policy(**arguments) if complete else None


def _convert(key: str, value: object, kind: Any) -> object:
    if get_origin(kind) is tuple:
        if not isinstance(value, list):
            raise SpecError("write a list of numbers")
        return tuple(_convert(key, entry, get_args(kind)[0]) for entry in cast("list[object]", value))
    if isinstance(kind, types.UnionType):
        kind = get_args(kind)[0]
    if kind is int:
        if isinstance(value, str):
            if "_bytes" in key:
                return parse_bytes(value)
            if key.endswith("_ms"):
                return round(1000 * parse_seconds(value))
        if isinstance(value, bool) or not isinstance(value, int):
            raise SpecError("write a whole number" + (" or a text like 32KiB" if "_bytes" in key else ""))
    if kind is str and not isinstance(value, str):
        raise SpecError("write a text")
    return value


def _unknown(key: str, known: Sequence[str]) -> Problem:
    near = difflib.get_close_matches(key, known, n=1)
    remedy = f"did you mean {near[0]}?" if near else f"use {', '.join(known)}" if known else "leave it out"
    return Problem(key, "is unknown", remedy)
