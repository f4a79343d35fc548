"""Known one-time caches: what is still live at exit on purpose, told by rules that a person can add to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import msgspec

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
        >>> CacheRules(read_rules(), ignored=["warm_up"]).find(Forest(), 0) is None
        True
    """

    def __init__(self, rules: Sequence[Rule], ignored: Sequence[str] = ()) -> None:
        self._rules = [
            (
                rule,
                *(_compile(text, rule.name) for text in (rule.function, rule.file, rule.module)),
            )
            for rule in rules
        ]
        self._forest: Forest | None = None
        self._of_label: dict[int, Rule | None] = {}
        self._of_node: list[Rule | None] = [None]
        self._ignored = [(text, _compile(text, "--ignore")) for text in ignored]

    def ignored_by(self, forest: Forest, node: int) -> str | None:
        """Answer the person's pattern that a stack matches with any of its frames; None where it matches none."""
        if not self._ignored:
            return None
        path = forest.path(node)
        return next((text for text, pattern in self._ignored if pattern and _matches(pattern, path)), None)

    def find(self, forest: Forest, node: int) -> Rule | None:
        """Answer the rule that a stack falls under, by its frames inside of the program's own code."""
        if forest is not self._forest:
            self._forest, self._of_label, self._of_node = forest, {}, [None]
        found = self._of_node
        for at in range(len(found), len(forest.parents)):
            number = forest.label_of[at]
            if forest.owner(number) == "own" and forest.labels[number].is_named:
                found.append(None)
                continue
            if number not in self._of_label:
                self._of_label[number] = self._judge(forest.labels[number])
            found.append(self._of_label[number] or found[forest.parents[at]])
        return found[node]

    def _judge(self, label: Label) -> Rule | None:
        for rule, function, file, module in self._rules:
            if (
                (function is None or function.search(label.function))
                and (file is None or file.search(label.file or ""))
                and (module is None or module.search(label.module or ""))
            ):
                return rule
        return None


def _matches(pattern: re.Pattern[str], path: Sequence[Label]) -> bool:
    return any(pattern.search(label.text) or pattern.search(label.module or "") for label in path)


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
                str(error),
                "each [[rule]] has name and function, file or module",
            ) from None
        if any(rule.function is rule.file is rule.module is None for rule in rules):
            raise TraceError(
                f"cannot read the rules of {path}", "a rule without a pattern would hold for everything"
            )
    built_in = resources.files("heapsmith.trace").joinpath("caches.toml").read_bytes()
    return rules + msgspec.toml.decode(built_in, type=_Rules).rule
