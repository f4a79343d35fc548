from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heapsmith.errors import HeapsmithError
from heapsmith.osmem import HEAP_START, BadPointerError, Model
from heapsmith.osmem.blocks import ADDRESS_SPACE_BYTES
from heapsmith.osmem.measures import measure
from heapsmith.osmem.model import COALESCES, FITS
from heapsmith.osmem.scenarios import random_lines
from heapsmith.osmem.script import parse_script, play
from heapsmith.osmem.study import RULES, STUDIED, Policy, compute_outcome, random_workload, study

POLICIES = list(itertools.product(FITS, COALESCES, (True, False), (0, 4096, 131072)))


@pytest.mark.parametrize(("fit", "coalesce", "split", "preallocation"), POLICIES)
@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_the_heap_is_whole_after_every_call_under_every_policy(
    fit: str, coalesce: str, split: bool, preallocation: int, seed: int
) -> None:
    model = Model("v1", fit=fit, coalesce=coalesce, split=split, preallocation_bytes=preallocation)  # type: ignore[arg-type]
    for one in play(parse_script("\n".join(random_lines(seed, 60, 24))), model):
        ends = [block.end for block in one.step.heap]
        assert [block.address for block in one.step.heap] == [HEAP_START, *ends][: len(ends)]
        assert one.step.pointer % 8 == 0
        live = sorted((b.payload, b.end) for b in (*one.step.heap, *one.step.mappings) if b.status != "free")
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(live))
    model.check()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_events_tell_the_same_story_as_system_calls(seed: int) -> None:
    for one in play(parse_script("\n".join(random_lines(seed, 80, 24))), Model()):
        step = one.step
        calls = [call.name for call in step.system_calls]
        assert calls.count("mmap") == len(step.happened("mapped"))
        assert calls.count("munmap") == len(step.happened("unmapped"))
        grown = sum(len(step.happened(kind)) for kind in ("preallocated", "grown", "appended"))
        assert sum(call.name == "brk" and call.arguments != (0,) for call in step.system_calls) == grown


@pytest.mark.parametrize("coalesce", COALESCES)
def test_neighbours_are_joined_when_the_policy_says_so(coalesce: str) -> None:
    heap = Model(coalesce=coalesce)  # type: ignore[arg-type]
    a, b, c = (heap.malloc(100).pointer for _ in range(3))
    heap.free(a)
    after_free = len(heap.free(b).heap)
    after_search = len(heap.malloc(5000).heap)
    expected = {"before-search": (4, 4), "on-free": (3, 4), "never": (4, 5)}
    assert (after_free, after_search) == expected[coalesce]
    heap.free(c)


def test_each_fit_takes_its_own_hole() -> None:
    taken: dict[str, int] = {}
    for fit in FITS:
        heap = Model(fit=fit)
        holes: list[int] = []
        for size in (3000, 1000, 2000, 1000):
            holes.append(heap.malloc(size).pointer)
            heap.malloc(8)
        heap.free(holes[3])
        heap.malloc(1000)  # leaves the next fit's mark behind the third hole
        for hole in holes[:3]:
            heap.free(hole)
        heap.free(heap.malloc(100_000).pointer)
        place = heap.malloc(900).pointer
        taken[fit] = holes.index(place) if place in holes else -1
    assert taken["best"] == 1
    assert taken["first"] == 0
    assert taken["worst"] == -1  # the untouched end of the heap is the largest


def test_bad_pointers_are_named_for_what_they_are() -> None:
    heap = Model()
    p, q = heap.malloc(100).pointer, heap.malloc(100).pointer
    with pytest.raises(
        BadPointerError, match=r"not the start of a live block: it points \+8 bytes into the block"
    ):
        heap.free(p + 8)
    with pytest.raises(BadPointerError, match="nothing was ever allocated there"):
        heap.free(1)
    heap.free(p)
    with pytest.raises(BadPointerError, match="double free"):
        heap.free(p)
    heap.free(q)
    heap.malloc(60_000)
    with pytest.raises(BadPointerError, match="not the start of a live block"):
        heap.realloc(q, 10)


def test_a_model_refuses_policies_that_do_not_exist() -> None:
    with pytest.raises(HeapsmithError, match="there is no fit 'tight'"):
        Model(fit="tight")  # type: ignore[arg-type]
    with pytest.raises(HeapsmithError, match="there is no layout 'v3'"):
        Model("v3")  # type: ignore[arg-type]
    with pytest.raises(HeapsmithError, match="cannot hold a block"):
        Model(preallocation_bytes=24)


def test_memory_that_the_system_has_not_is_null_and_changes_nothing() -> None:
    heap = Model()
    p = heap.malloc(1000).pointer
    before = heap.heap
    assert heap.malloc(ADDRESS_SPACE_BYTES).result == 0
    assert heap.realloc(p, ADDRESS_SPACE_BYTES).result == 0
    assert heap.malloc((1 << 64) - 1).result == 0
    assert heap.heap == before


def test_measures_add_up_to_what_came_from_the_system() -> None:
    for one in play(parse_script(random_workload(300, seed=3)), Model("v2")):
        m = measure(one.step)
        assert m.committed_bytes == m.metadata_bytes + m.usable_live_bytes + m.free_bytes
        assert m.requested_live_bytes <= m.usable_live_bytes
        assert m.largest_free_bytes <= m.free_bytes


def test_the_study_shows_what_each_rule_buys() -> None:
    by_policy = {outcome.policy: outcome for outcome in study(parse_script(random_workload(1500, seed=5)))}
    assert list(by_policy) == list(STUDIED)
    rules = by_policy[RULES]
    assert by_policy[Policy(preallocation_bytes=0)].system_calls > rules.system_calls
    assert (
        by_policy[Policy(split=False)].internal_fragmentation_ratio > 10 * rules.internal_fragmentation_ratio
    )
    assert by_policy[Policy(coalesce="never")].scattered_ratio > rules.scattered_ratio
    assert (
        by_policy[Policy(fit="next")].search_steps
        < by_policy[Policy(fit="first")].search_steps
        < rules.search_steps
    )
    assert by_policy[Policy(coalesce="on-free")].coalesce_steps < rules.coalesce_steps


def test_an_outcome_is_the_sum_of_its_steps() -> None:
    script = parse_script("a = malloc 1000\nb = malloc 200000\na = realloc a 3000\nfree b\nfree a")
    outcome = compute_outcome(script, RULES)
    assert outcome.system_calls == 4  # brk twice, mmap, munmap
    assert outcome.heap_bytes_peak == 131072
    assert outcome.committed_bytes_peak == 131072 + 200024
    assert outcome.copied_bytes == 0
