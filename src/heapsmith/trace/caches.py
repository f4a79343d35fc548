"""Known one-time caches: what is still live at exit on purpose, told by rules that a person can add to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import msgspec
import numpy as np

from heapsmith.errors import TraceError
from heapsmith.trace.places import Forest, Label


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One kind of cache: a frame that matches all the patterns given tells it.

    Attributes:
        name: Of the cache.
        why: Why it stays.
        function: Pattern of a function's name.
        file: Pattern of a source file.
        module: Pattern of a program's or library's path.
    """

    name: str
    why: str = ""
    function: str | None = None
    file: str | None = None
    module: str | None = None


class _Rules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    rule: list[Rule]


class CacheRules:
    """Rules ready for use.

    Args:
        rules: Of caches.
        ignored: Patterns of the person: stacks with a frame that matches anywhere are set aside as well.

    Raises:
        TraceError: A pattern is no regular expression.

    Example:
        >>> CacheRules(read_rules(), ignored=["warm_up"]).find(Forest())
        [None]
    """

    def __init__(self, rules: Sequence[Rule], ignored: Sequence[str] = ()) -> None:
        self._rules = [
            (
                rule,
                *(_compile(text, rule.name) for text in (rule.function, rule.file, rule.module)),
            )
            for rule in rules
        ]
        self._ignored = [(text, _compile(text, "--ignore")) for text in ignored]

    def find(self, forest: Forest) -> list[str | None]:
        """Answer for each node what its stack falls under.

        A rule judges frames inside of the program's own code; where none holds, a pattern of the person any frame.

        Returns:
            The name of the cache or the text of the pattern of each node; None where it falls under nothing.
        """
        names: list[str | None] = [None, None]
        of_label = np.zeros(len(forest.labels), np.int64)
        for number, label in enumerate(forest.labels):
            if forest.owner(number) == "own" and label.is_named:
                of_label[number] = 1
            elif (rule := self._judge(label)) is not None:
                if rule.name not in names:
                    names.append(rule.name)
                of_label[number] = names.index(rule.name)
        labels = np.array(forest.label_of, np.int64)
        found = forest.inherit(of_label[labels])
        for text, pattern in self._ignored:
            matches = [pattern is not None and _matches(pattern, label) for label in forest.labels]
            is_ignored = forest.inherit(np.array(matches, np.int64)[labels]) > 0
            found[is_ignored & (found <= 1)] = len(names)
            names.append(text)
        return [names[place] for place in found.tolist()]

    def _judge(self, label: Label) -> Rule | None:
        for rule, function, file, module in self._rules:
            if (
                (function is None or function.search(label.function))
                and (file is None or file.search(label.file or ""))
                and (module is None or module.search(label.module or ""))
            ):
                return rule
        return None


def _matches(pattern: re.Pattern[str], label: Label) -> bool:
    return bool(pattern.search(label.text) or pattern.search(label.module or ""))


def _compile(text: str | None, whose: str) -> re.Pattern[str] | None:
    if text is None:
        return None
    try:
        return re.compile(text)
    except re.error as error:
        raise TraceError(
            f"{text!r} is no pattern", f"{error} ({whose})", "write a regular expression"
        ) from None


def read_rules(files: Sequence[Path] = ()) -> list[Rule]:
    """Read the built-in rules, and those of a person's files before them.

    Raises:
        TraceError: A file cannot be read, or is not of this form.

    Example:
        >>> any(rule.name == "import system" for rule in read_rules())
        True
    """
    rules: list[Rule] = []
    for path in files:
        try:
            rules += msgspec.toml.decode(path.read_bytes(), type=_Rules).rule
        except (OSError, msgspec.MsgspecError, ValueError) as error:
            raise TraceError(
                f"cannot read the rules of {path}",
                error.strerror or str(error) if isinstance(error, OSError) else str(error),
                "each [[rule]] has name and function, file or module",
            ) from None
        if any(rule.function is rule.file is rule.module is None for rule in rules):
            raise TraceError(
                f"cannot read the rules of {path}", "a rule without a pattern would hold for everything"
            )
    built_in = resources.files("heapsmith.trace").joinpath("caches.toml").read_bytes()
    return rules + msgspec.toml.decode(built_in, type=_Rules).rule
