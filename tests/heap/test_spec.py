"""A heap described: what a spec accepts, what it refuses, and how it says so."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heapsmith.errors import SpecError
from heapsmith.forge.presets import stale
from heapsmith.native import SOURCES
from heapsmith.spec import (
    BoundedCache,
    CheckedBlocks,
    Explicit,
    FixedCache,
    Geometric,
    HeapSpec,
    Limit,
    NoCache,
    OsPages,
    PowersOfTwo,
    PurgeAfter,
    PurgeAtOnce,
    RemoteStack,
    ZeroOnFree,
    load_spec,
    presets,
    read_document,
    write_document,
)
from heapsmith.spec.policies import POLICIES, HardeningPolicy
from heapsmith.units import KiB, MiB

SIZES = st.one_of(
    st.builds(
        Geometric,
        smallest_bytes=st.sampled_from([16, 32, 48]),
        largest_bytes=st.sampled_from([1 * KiB, 32 * KiB, 256 * KiB]),
        steps_per_doubling=st.sampled_from([1, 2, 4, 8]),
    ),
    st.builds(PowersOfTwo, smallest_bytes=st.sampled_from([8, 16, 64])),
    st.lists(st.integers(1, 4096).map(lambda n: 8 * n), min_size=1, max_size=40, unique=True).map(
        lambda sizes: Explicit(tuple(sorted(sizes)))
    ),
)
CACHES = st.one_of(
    st.builds(BoundedCache, limit_bytes=st.integers(1 * KiB, 16 * MiB), magazine_blocks=st.integers(1, 500)),
    st.lists(st.integers(1, 500), min_size=1, max_size=20).map(lambda blocks: FixedCache(tuple(blocks))),
)
PIPES = st.one_of(
    st.just(OsPages() | PurgeAtOnce()),
    st.builds(
        lambda ms, limit: OsPages() | Limit(limit) | PurgeAfter(ms),
        st.integers(0, 10**6),
        st.integers(MiB, 1 << 40),
    ),
)
SPECS = st.builds(
    HeapSpec, name=st.from_regex(r"\A[a-z][a-z0-9_-]{0,20}\Z"), sizes=SIZES, cache=CACHES, pages=PIPES
)


@given(SPECS)
def test_a_spec_written_as_toml_reads_back_as_the_same_value(spec: HeapSpec) -> None:
    assert read_document(write_document(spec)) == spec


@given(SIZES)
def test_classes_rise_and_hold_what_they_promise(sizes: Geometric | PowersOfTwo | Explicit) -> None:
    classes = sizes.class_bytes()
    assert classes == sorted(set(classes))
    if isinstance(sizes, Geometric):
        for low, high in itertools.pairwise(classes):
            assert high - low <= max(16, low // sizes.steps_per_doubling)
            assert high % 16 == 0


@given(SPECS)
def test_an_explanation_names_every_policy_in_force(spec: HeapSpec) -> None:
    text = spec.explain()
    for _, policy in spec.policies():
        assert type(policy).__name__ in text


def test_all_problems_are_reported_at_once_each_with_its_field_and_a_remedy() -> None:
    document = """
        name = "Bad Name"
        colour = 3
        [sizes]
        policy = "Explicit"
        class_bytes_list = [64, 32]
        [cache]
        policy = "BoundedCahe"
        [[pages]]
        policy = "OsPages"
        [[pages]]
        policy = "Limit"
        limit_bytes = "4KiB"
        [[pages]]
        policy = "PurgeAfter"
        delay = 5
        [lock]
        policy = "FutexLock"
        spin = 3
    """
    with pytest.raises(SpecError) as caught:
        read_document(document)
    message = str(caught.value)
    for part in (
        "name is 'Bad Name'",
        "colour is unknown",
        "class_bytes_list is not in rising order at 32",
        "cache.policy is 'BoundedCahe': did you mean BoundedCache?",
        "pages[2].delay is unknown: did you mean delay_ms?",
        "lock.spin is unknown",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sizes": Geometric(steps_per_doubling=3)}, "sizes.steps_per_doubling is 3"),
        ({"sizes": Geometric(smallest_bytes=24)}, "sizes.smallest_bytes is 24"),
        ({"sizes": Explicit(())}, "is empty"),
        ({"sizes": Explicit((16, 20))}, "has 20"),
        ({"cache": FixedCache((4, 0))}, "capacity that is not 1 to 65536"),
        ({"cache": NoCache(), "remote": RemoteStack()}, "no thread owns spans"),
        ({"pages": OsPages() | Limit(4096)}, "below what a program needs to start"),
        ({"pages": OsPages() | PurgeAtOnce() | PurgeAfter()}, "decide for one way"),
        ({"pages": PurgeAtOnce() | OsPages()}, "begin with OsPages()"),
        ({"hardening": (ZeroOnFree(),)}, "without CheckedBlocks"),
        ({"hardening": (CheckedBlocks(),)}, "under CheckedBlocks"),
        ({"cache": PurgeAtOnce()}, "put a policy of slot `cache` there"),
    ],
)
def test_a_heap_that_cannot_work_is_never_made(change: dict[str, object], said: str) -> None:
    with pytest.raises(SpecError, match=re.escape(said)):
        HeapSpec(**change)  # pyright: ignore[reportArgumentType]


def test_a_class_list_that_gives_up_malloc_s_alignment_says_so() -> None:
    assert "gives up 16-byte alignment" in HeapSpec(sizes=Explicit((16, 24, 32))).explain()
    assert "gives up" not in HeapSpec(sizes=Explicit((16, 32))).explain()


def test_presets_are_there_and_the_default_is_all_defaults() -> None:
    assert set(presets()) >= {"default", "pow2", "low-latency", "small", "hardened"}
    assert load_spec("default") == HeapSpec()
    assert load_spec("pow2").sizes.class_bytes() == [16 << i for i in range(12)]


def test_an_unknown_name_is_refused_with_the_nearest_one(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="did you mean `default`"):
        load_spec("defualt")
    with pytest.raises(SpecError, match="No such file"):
        load_spec(tmp_path / "none.toml")
    (tmp_path / "broken.toml").write_text("name = ")
    with pytest.raises(SpecError, match="not TOML"):
        load_spec(tmp_path / "broken.toml")


def test_every_policy_has_one_header_of_its_name_and_every_header_its_policy() -> None:
    declared = {policy.header for policy in POLICIES}
    for policy in POLICIES:
        source = (SOURCES / policy.header).read_text()
        assert re.search(rf"\b(struct|using) {policy.__name__}\b", source), (
            f"{policy.header} has no struct {policy.__name__}"
        )
        assert "Promise:" in source, f"{policy.header} promises nothing"
    composed = {
        "links/plain_links.h",
        "links/scrubbed_links.h",
        "sizes/size_classes.h",
        "knobs.h",
        "pages/at_start.h",
        "pages/pipe.h",
        "pages/region_pages.h",
        "concepts.h",
    }
    headers = {str(path.relative_to(SOURCES)) for path in (SOURCES / "policy").rglob("*.h")}
    assert headers == declared | {f"policy/{name}" for name in composed}
    assert all(policy.slot for policy in POLICIES if policy is not HardeningPolicy)


def test_the_rendered_presets_are_those_of_the_specs() -> None:
    assert stale() == []


def test_the_heap_of_the_page_is_the_same_in_toml_and_in_python(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "heap.md").read_text()
    blocks = dict(re.findall(r"```(toml|python)\n(.*?)```", page, re.DOTALL))
    (tmp_path / "web.toml").write_text(blocks["toml"])
    names: dict[str, object] = {}
    exec(blocks["python"], names)
    assert names["web"] == load_spec(tmp_path / "web.toml")
