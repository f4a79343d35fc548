"""The house's own rules, as far as a machine can hold them."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from heapsmith.cli import VERBS, main
from heapsmith.wire import render
from heapsmith.wire.classes import CLASS_BYTES, compute_class_index

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "src" / "heapsmith"
sys.path.insert(0, str(ROOT / "tools"))

import check_layers  # noqa: E402

FORBIDDEN_WORDS = frozenset(
    # The last column of docs/vocabulary.md, where a word has no honest second meaning.
    re.findall(r"`([a-z_]+)`", "".join(
        line.rsplit("|", 2)[1]
        for line in (ROOT / "docs" / "vocabulary.md").read_text().splitlines()
        if line.startswith("| ") and line.count("|") == 4
    ))
)  # fmt: skip


def test_every_import_and_include_points_downwards() -> None:
    assert check_layers.violations() == []


def test_an_upward_import_would_be_found() -> None:
    assert list(
        check_layers.imported_rooms("from heapsmith.show.text import x\nimport heapsmith.cli", "run")
    ) == [
        "show",
        "cli",
    ]


def test_the_native_header_is_what_the_tables_render() -> None:
    assert render.HEADER.read_text() == render.render_header()


def test_every_class_ends_where_its_bound_says() -> None:
    for index, bound in enumerate(CLASS_BYTES[:-1]):
        assert bound is not None
        assert compute_class_index(bound) == index
        assert compute_class_index(bound + 1) == index + 1


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_in_the_file_of_its_name_and_shows_an_example(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (SOURCES / "cli" / f"{verb}.py").is_file()
    assert main([verb, "--help"]) == 0
    assert re.search(rf"Example: heapsmith (.*heapsmith )?{verb}\b", capsys.readouterr().out)


def public_names() -> Iterator[tuple[str, str]]:
    for path in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                yield str(path.relative_to(SOURCES)), node.name
                if isinstance(node, ast.FunctionDef):
                    for argument in (*node.args.args, *node.args.kwonlyargs):
                        yield str(path.relative_to(SOURCES)), argument.arg


def test_public_names_use_the_vocabulary() -> None:
    assert FORBIDDEN_WORDS
    wrong = [
        f"{path}: {name}"
        for path, name in public_names()
        if FORBIDDEN_WORDS & set(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower().split("_"))
    ]
    assert wrong == []


def test_no_room_is_a_junk_room() -> None:
    junk = {"utils", "helpers", "common", "misc", "old"}
    assert [str(path) for path in SOURCES.rglob("*") if path.stem in junk] == []


def test_every_dependency_has_a_lower_bound() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = [line for group in project["optional-dependencies"].values() for line in group]
    everything = [line for line in (*project["dependencies"], *optional) if not line.startswith("heapsmith[")]
    assert [line for line in everything if ">=" not in line] == []
