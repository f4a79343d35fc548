"""The script language: a program of malloc, calloc, realloc and free calls, one a line.

    p = malloc 1000          # a name for what comes back
    q = realloc p 2000       # p is gone from here on
    calloc 10 8              # nobody keeps the result
    free q
    free NULL

Sizes may carry a unit (``128KiB``). ``realloc p 10`` without a name keeps the name ``p``. C's own spelling
is fine too: ``p = os_malloc(1000);``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from typing import Final, Literal

from heapsmith.errors import HeapsmithError
from heapsmith.osmem.blocks import Step
from heapsmith.osmem.model import BadPointerError, Model
from heapsmith.units import parse_bytes

Verb = Literal["malloc", "calloc", "realloc", "free"]
VERBS: Final[dict[Verb, str]] = {
    "malloc": "malloc BYTES",
    "calloc": "calloc COUNT BYTES",
    "realloc": "realloc POINTER BYTES",
    "free": "free POINTER",
}
_TOKEN: Final = re.compile(r"[ \t\r,();]+|(?P<comment>#.*|//.*)|(?P<word>=|[^\s,();=#]+)")
_NAME: Final = re.compile(r"[A-Za-z_]\w*(\[\d+\])?", re.ASCII)
_OFFSET: Final = re.compile(r"(?P<name>[^+-]+)(?P<offset>[+-]\w+)", re.ASCII)
_LARGEST: Final = (1 << 64) - 1


class ScriptError(HeapsmithError):
    """A script that cannot be run, with the place where it goes wrong.

    Attributes:
        line: From 1.
        column: From 1.
    """

    def __init__(self, source: str, line: int, column: int, what: str, why: str = "", hint: str = "") -> None:
        super().__init__(f"{source}:{line}:{column}: {what}", why, hint)
        self.line = line
        self.column = column


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a script and where it stands."""

    text: str
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Operation:
    """One line of a script.

    Attributes:
        verb: What to call.
        target: The name for the result, if one was given.
        pointer: The pointer argument as written, for ``realloc`` and ``free``.
        numbers: The sizes and counts.
        text: The line, without its comment.
        line: From 1.
        comment: What the script says about the line; may be empty.
    """

    verb: Verb
    target: str | None
    pointer: Word | None
    numbers: tuple[int, ...]
    text: str
    line: int
    column: int
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Script:
    """A parsed script; ``source`` is the name that errors give it."""

    source: str
    operations: tuple[Operation, ...]


@dataclass(frozen=True, slots=True)
class Played:
    """A line of a script and what it did.

    Attributes:
        operation: The line.
        step: What the model did.
        source: The number of the line whose result the pointer argument is, from 0; -1 for NULL or none.
        names: Which line's result each live name stands for, after this line.
    """

    operation: Operation
    step: Step
    source: int
    names: dict[str, int]


def parse_script(text: str, source: str = "script") -> Script:
    """Read a script.

    Args:
        text: The lines.
        source: What errors call it, usually the file name.

    Raises:
        ScriptError: A line is no call; the error says where and what would be one.

    Example:
        >>> parse_script("p = malloc 1000  # the first").operations[0].numbers
        (1000,)
        >>> parse_script("p = mallok 1000")
        Traceback (most recent call last):
        heapsmith.osmem.script.ScriptError: script:1:5: 'mallok' is no call (malloc, calloc, realloc or free)
    """
    operations: list[Operation] = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = list(_words(source, number, line))
        if words:
            operations.append(_parse_line(source, line, words))
    return Script(source, tuple(operations))


def _words(source: str, number: int, line: str) -> Iterator[Word]:
    position = 0
    while position < len(line):
        match = _TOKEN.match(line, position)
        if match is None:
            raise ScriptError(source, number, position + 1, f"{line[position]!r} means nothing here")
        if match["word"]:
            yield Word(match["word"], number, position + 1)
        position = match.end()


def _parse_line(source: str, line: str, words: list[Word]) -> Operation:
    def refuse(word: Word, what: str, hint: str = "") -> ScriptError:
        return ScriptError(source, word.line, word.column, what, hint=hint)

    start = words[0]
    target: str | None = None
    if len(words) > 1 and words[1].text == "=":
        if not _NAME.fullmatch(start.text) or _is_null(start):
            raise refuse(start, f"{start.text!r} cannot be a name", "letters, digits and _, or a[0]")
        target = start.text
        words = words[2:]
        if not words:
            raise refuse(start, f"nothing is assigned to {target}", "for example: p = malloc 1000")
    call = words[0]
    verb = call.text.removeprefix("os_")
    if verb not in VERBS:
        raise refuse(call, f"{call.text!r} is no call", "malloc, calloc, realloc or free")
    usage = VERBS[verb]
    arguments = words[1:]
    wanted = len(usage.split()) - 1
    if len(arguments) != wanted:
        word = arguments[wanted] if len(arguments) > wanted else call
        raise refuse(
            word,
            f"{verb} takes {wanted} argument{'s'[: wanted - 1]}, not {len(arguments)}",
            f"write: {usage}",
        )
    if verb == "free" and target:
        raise refuse(start, "free returns nothing, so nothing can be named")
    pointer = arguments[0] if verb in {"realloc", "free"} else None
    numbers = tuple(_parse_number(source, word) for word in arguments[1 if pointer else 0 :])
    code, _, comment = line.partition("//" if "#" not in line else "#")
    return Operation(verb, target, pointer, numbers, code.strip(), start.line, start.column, comment.strip())


def _is_null(word: Word) -> bool:
    return word.text in {"NULL", "0", "nullptr"}


def _parse_number(source: str, word: Word) -> int:
    try:
        value = int(word.text, 0) if word.text.lower().startswith("0x") else parse_bytes(word.text)
    except (HeapsmithError, ValueError):
        # A plain number may be as large as a size_t, which is more than a number of bytes can be anywhere
        # else.
        if not (word.text.isascii() and word.text.isdigit()):
            raise ScriptError(
                source,
                word.line,
                word.column,
                f"{word.text!r} is not a number of bytes",
                hint="write 1000, 0x3e8 or 128KiB",
            ) from None
        value = int(word.text)
    if value > _LARGEST:
        raise ScriptError(source, word.line, word.column, f"{word.text} does not fit a size_t")
    return value


class _Names:
    """What each name of a running script stands for, and what became of it."""

    def __init__(self, script: Script) -> None:
        self._source = script.source
        self.live: dict[str, int] = {}
        self._gone: dict[str, tuple[str, int]] = {}  # why, and the line whose result it was

    def resolve(
        self, word: Word, results: Sequence[int], verb: Verb, free_payloads: Set[int]
    ) -> tuple[int, int]:
        """Return the address and the line (from 0, -1 for NULL) that a pointer argument stands for."""

        def refuse(what: str, why: str = "", hint: str = "") -> ScriptError:
            return ScriptError(self._source, word.line, word.column, what, why, hint)

        if _is_null(word):
            return 0, -1
        if word.text in self.live:
            return results[self.live[word.text]], self.live[word.text]
        if word.text in self._gone:
            why, line = self._gone[word.text]
            if verb == "realloc" and "freed" in why and results[line] in free_payloads:
                return results[line], line  # a rule of its own: a block that is still free answers NULL
            if "freed" in why and verb == "free":
                raise refuse(f"double free of {word.text}", why)
            raise refuse(f"{word.text} is not a live pointer any more", why)
        if match := _OFFSET.fullmatch(word.text):
            if match["name"] in self.live:
                raise refuse(
                    f"{word.text} is a foreign pointer",
                    f"it points into the block of {match['name']}, not to its start",
                )
        elif word.text[0].isdigit():
            raise refuse(f"{word.text} is a foreign pointer", "no call of this script has returned it")
        known = ", ".join(self.live) or "no name is in use yet"
        raise refuse(f"the name {word.text!r} is unknown", hint=f"known here: {known}")

    def forget(self, line_index: int, why: str) -> None:
        """Take all names of a line's result out of use, saying why."""
        for name in [name for name, index in self.live.items() if index == line_index]:
            self._gone[name] = (why, line_index)
            del self.live[name]

    def bind(self, name: str, line_index: int) -> None:
        """Let a name stand for a line's result."""
        self._gone.pop(name, None)
        self.live[name] = line_index


def play(script: Script, model: Model) -> list[Played]:
    r"""Carry out a script on a model.

    Args:
        script: What to do.
        model: A fresh one, or one that has seen other scripts.

    Returns:
        One entry per operation.

    Raises:
        ScriptError: A name is unknown, a block is freed twice, or a pointer is none of this heap's; with its
            place.

    Example:
        >>> run = play(parse_script("p = malloc 10\nfree p"), Model())
        >>> [played.step.function for played in run]
        ['os_malloc', 'os_free']
        >>> play(parse_script("p = malloc 10\nfree p\nfree p"), Model())
        Traceback (most recent call last):
        heapsmith.osmem.script.ScriptError: script:3:6: double free of p: it was freed on line 2
    """
    names = _Names(script)
    played: list[Played] = []
    results: list[int] = []
    for index, operation in enumerate(script.operations):
        address, source = 0, -1
        if operation.pointer is not None:
            free_payloads = {block.payload for block in model.heap if block.status == "free"}
            address, source = names.resolve(operation.pointer, results, operation.verb, free_payloads)
        step = _carry_out(script, model, operation, address)
        results.append(step.pointer)
        if operation.verb == "free":
            names.forget(source, f"it was freed on line {operation.line}")
        elif operation.verb == "realloc" and source >= 0:
            if operation.numbers[0] == 0:
                names.forget(source, f"it was freed on line {operation.line}")
            elif step.pointer:
                names.forget(source, f"realloc took it on line {operation.line}")
        target = operation.target
        if (
            target is None
            and operation.verb == "realloc"
            and step.pointer
            and source >= 0
            and operation.pointer
        ):
            target = operation.pointer.text
        if target is not None:
            names.bind(target, index)
        played.append(Played(operation, step, source, dict(names.live)))
    return played


def _carry_out(script: Script, model: Model, operation: Operation, address: int) -> Step:
    numbers = operation.numbers
    try:
        match operation.verb:
            case "malloc":
                return model.malloc(numbers[0])
            case "calloc":
                return model.calloc(numbers[0], numbers[1])
            case "realloc":
                return model.realloc(address, numbers[0])
            case "free":
                return model.free(address)
    except BadPointerError as error:
        word = operation.pointer
        assert word is not None, "only a pointer argument can be a bad one"
        raise ScriptError(
            script.source, word.line, word.column, f"{word.text}: {error.what}", error.why, error.hint
        ) from None
