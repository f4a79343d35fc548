# ruff: noqa: E501 (what a program prints, and C that is compiled, is quoted whole)
from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from mutants import FREE_CHOICES, WRONG, Mutant, build, compile_c

from heapsmith.errors import CheckError
from heapsmith.osmem.blocks import Layout
from heapsmith.osmem.checker import Verdict, check_library, choose_scenarios
from heapsmith.osmem.libraries import built_library, header_bytes_of
from heapsmith.osmem.scenarios import SCENARIOS, random_scenario

LAYOUTS: dict[int, Layout] = {1: "v1", 2: "v2"}
FOUR_STUBS = (
    "#include <stddef.h>\nvoid *os_malloc(size_t n) { return NULL; }\nvoid *os_calloc(size_t n, size_t m) { return NULL; }\n"
    "void *os_realloc(void *p, size_t n) { return NULL; }\nvoid os_free(void *p) {}\n"
)


def failures(library: Path, layout: Layout, *names: str) -> dict[str, Verdict]:
    verdicts = check_library(library, layout, choose_scenarios(names), time_limit_s=1.0)
    return {verdict.scenario.name: verdict for verdict in verdicts if not verdict.passed}


@pytest.mark.parametrize("layout", ["v1", "v2"])
def test_our_own_library_passes_every_scenario_within_the_time_promised(layout: Layout) -> None:
    started = time.monotonic()
    assert failures(built_library(layout), layout) == {}
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("layout", [1, 2])
@pytest.mark.parametrize("mutant", WRONG, ids=lambda one: one.name)
def test_a_library_with_one_mistake_fails_the_scenario_about_it(
    mutant: Mutant, layout: int, tmp_path: Path
) -> None:
    failed = failures(build(mutant, tmp_path, layout), LAYOUTS[layout], mutant.caught_by)
    assert mutant.caught_by in failed
    assert mutant.saying in " ".join(failed[mutant.caught_by].offences)


@pytest.mark.parametrize("layout", [1, 2])
@pytest.mark.parametrize("mutant", FREE_CHOICES, ids=lambda one: one.name)
def test_what_the_course_leaves_open_is_not_held_against_a_library(
    mutant: Mutant, layout: int, tmp_path: Path
) -> None:
    assert failures(build(mutant, tmp_path, layout), LAYOUTS[layout]) == {}


@pytest.mark.parametrize(
    ("name", "survivors"),
    [
        ("crashes in calloc", "malloc-aligns"),
        ("hangs on free(NULL)", "coalesce-two"),
        ("mremap", "realloc-same-size"),
    ],
)
def test_a_scenario_that_goes_wrong_leaves_the_others_alone(
    name: str, survivors: str, tmp_path: Path
) -> None:
    mutant = next(one for one in WRONG if one.name == name)
    failed = failures(build(mutant, tmp_path), "v1")
    assert failed
    assert survivors not in failed


def test_every_scenario_fails_for_some_mistake(tmp_path: Path) -> None:
    never_failed = {scenario.name for scenario in SCENARIOS}
    for mutant in WRONG:
        if mutant.caught_by in never_failed - {"free-null"}:
            never_failed -= set(failures(build(mutant, tmp_path), "v1"))
    assert never_failed <= {"free-null"}  # caught by the mutant that hangs, which is tested above


def test_an_unwritten_library_scores_what_null_answers_earn(tmp_path: Path) -> None:
    verdicts = list(check_library(compile_c(FOUR_STUBS, tmp_path / "stubs.so"), "v1"))
    passed = {v.scenario.name for v in verdicts if v.passed}
    assert passed == {"calloc-nothing"}


def test_system_calls_are_seen_however_they_are_made(tmp_path: Path) -> None:
    source = FOUR_STUBS.replace(
        "{ return NULL; }",
        '{ long r; __asm__ volatile("syscall" : "=a"(r) : "a"(12L), "D"(0L) : "rcx", "r11", "memory"); return NULL; }',
        1,
    )
    library = compile_c(source, tmp_path / "inline.so")
    verdict = next(iter(check_library(library, "v1", choose_scenarios(["malloc-nothing"]))))
    assert any("brk (['0'])" in line for line in verdict.actual)


def test_random_programs_find_a_mistake_and_show_where(tmp_path: Path) -> None:
    library = build(next(one for one in WRONG if one.name == "highest of equals"), tmp_path)
    verdicts = list(check_library(library, "v1", [random_scenario(seed) for seed in range(20)]))
    failed = [verdict for verdict in verdicts if not verdict.passed]
    assert failed
    assert failed[0].diff()[0].startswith("--- random-")


def test_a_path_with_spaces_and_colons_can_be_checked(tmp_path: Path) -> None:
    library = tmp_path / "my: own lib.so"
    library.write_bytes(built_library().read_bytes())
    assert failures(library, "v1") == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_no_privilege_is_needed(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        os._exit(0 if failures(built_library(), "v1") == {} else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_the_layout_is_recognised() -> None:
    assert header_bytes_of(built_library("v1")) == 24
    assert header_bytes_of(built_library("v2")) == 32


def test_a_library_of_the_other_layout_is_named_as_such() -> None:
    with pytest.raises(CheckError, match="looks like layout v2, not v1"):
        list(check_library(built_library("v2"), "v1"))
    with pytest.raises(CheckError, match="looks like layout v1, not v2"):
        list(check_library(built_library("v1"), "v2"))


def test_a_library_that_lacks_functions_is_refused_by_their_names(tmp_path: Path) -> None:
    source = FOUR_STUBS.replace("os_calloc", "os_alloc").replace("os_free", "os_release")
    with pytest.raises(CheckError, match=r"lacks os_calloc, os_free"):
        list(check_library(compile_c(source, tmp_path / "half.so"), "v1"))


def test_a_library_that_cannot_be_loaded_is_refused_with_the_loaders_reason(tmp_path: Path) -> None:
    library = compile_c(FOUR_STUBS, tmp_path / "cut.so")
    library.write_bytes(library.read_bytes()[:100])
    with pytest.raises(CheckError, match="cannot be loaded: cannot read file data"):
        list(check_library(library, "v1"))


def test_a_missing_symbol_of_the_library_is_an_offence_that_quotes_the_loader(tmp_path: Path) -> None:
    source = "void *nobody_has_this(void);\n" + FOUR_STUBS.replace(
        "{ return NULL; }", "{ return nobody_has_this(); }", 1
    )
    library = compile_c(source, tmp_path / "lazy.so")
    verdict = next(iter(check_library(library, "v1", choose_scenarios(["malloc-aligns"]))))
    assert "exited with status 127" in verdict.offences[0]
    assert "nobody_has_this" in verdict.offences[0]


def test_names_may_be_patterns_and_a_wrong_name_is_corrected() -> None:
    assert [one.name for one in choose_scenarios(["realloc-shrink*"])] == [
        "realloc-shrink-splits",
        "realloc-shrink-without-split",
    ]
    with pytest.raises(CheckError, match="did you mean malloc-nothing"):
        choose_scenarios(["malloc-nothin"])
