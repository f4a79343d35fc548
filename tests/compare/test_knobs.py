"""Knobs are typed values: they read what they write, and refuse what the allocator would refuse."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heapsmith.errors import HeapsmithError
from heapsmith.peers import python
from heapsmith.peers.allocator import FIELDS, Allocator
from heapsmith.peers.candidate import Candidate, make_candidate, read_candidate, read_candidates
from heapsmith.peers.knobs import Knob, Value
from heapsmith.peers.register import Found, find, library_folders, register

ALL_KNOBS = [(allocator, knob) for allocator in register().values() for knob in allocator.knobs]


def values_of(knob: Knob) -> st.SearchStrategy[Value]:
    low = -1e9 if knob.lowest is None else knob.lowest
    high = min(1e12, knob.highest if knob.highest is not None else 1e12)
    if knob.kind == "flag":
        return st.booleans()
    if knob.kind == "choice":
        return st.sampled_from(knob.choices)
    if knob.kind == "ratio":
        return st.sampled_from([value for value in (0.0, 0.5, 1.0, 10.0, 100.0) if low <= value <= high])
    if knob.kind == "bytes":
        low = max(low, 0)
    return st.integers(int(low), int(high))


@pytest.mark.parametrize(("allocator", "knob"), ALL_KNOBS, ids=lambda item: getattr(item, "name", ""))
@given(data=st.data())
def test_a_knob_reads_what_it_writes(allocator: Allocator, knob: Knob, data: st.DataObject) -> None:
    value = data.draw(values_of(knob))
    assert knob.read(knob.write(value)) == value


@pytest.mark.parametrize(("allocator", "knob"), ALL_KNOBS, ids=lambda item: getattr(item, "name", ""))
def test_what_is_tried_and_what_is_default_is_in_range(allocator: Allocator, knob: Knob) -> None:
    for value in (*knob.tries, *(() if knob.default is None else (knob.default,))):
        assert knob.read(knob.write(value)) == value
    assert knob.default is not None or knob.default_note


@pytest.mark.parametrize(("allocator", "knob"), ALL_KNOBS, ids=lambda item: getattr(item, "name", ""))
def test_a_knob_refuses_values_out_of_its_range_and_says_what_is_good(
    allocator: Allocator, knob: Knob
) -> None:
    bad = ["", "many"]
    if knob.lowest is not None and knob.kind != "bytes":
        bad.append(str(int(knob.lowest) - 1))
    if knob.highest is not None and knob.highest < 1e18:
        bad.append(str(int(knob.highest) + 1))
    for text in bad:
        with pytest.raises(HeapsmithError) as caught:
            knob.read(text)
        assert knob.kind == "bytes" or knob.name in str(caught.value)


@pytest.mark.parametrize("allocator", register().values(), ids=lambda allocator: allocator.name)
def test_every_start_is_made_of_knobs_of_its_allocator_in_range(allocator: Allocator) -> None:
    for start in allocator.starts:
        for name, value in start.knobs:
            knob = allocator.knob(name)
            assert knob is not None
            assert knob.read(knob.write(value)) == value
        assert start.python is None or start.python in python.KNOB.choices
    assert set(allocator.fields) == set(FIELDS)


@settings(deadline=None)  # the first of each starts a program on it
@given(data=st.data())
def test_a_candidate_is_read_back_from_its_own_label(data: st.DataObject) -> None:
    found = data.draw(st.sampled_from([find(name) for name in register() if find(name).here]))
    known = [knob for knob in found.allocator.knobs if knob.known_in(found.version_numbers)]
    chosen = data.draw(st.lists(st.sampled_from(known), unique_by=lambda knob: knob.name)) if known else []
    made = make_candidate(found, [(knob.name, data.draw(values_of(knob))) for knob in chosen])
    assert read_candidate(made.label) == made


def test_all_that_is_wrong_is_said_at_once_with_the_nearest_names() -> None:
    with pytest.raises(HeapsmithError) as caught:
        read_candidates(
            ["jemaloc", "glibc:arena_mx=3", "glibc:tcache_count=70000,hugetlb", "/no/lib.so", "system:x=1"]
        )
    text = str(caught.value)
    assert "`jemalloc`" in text
    assert "`arena_max`" in text
    assert "0 to 65535" in text
    assert "'hugetlb' has no value" in text
    assert "/no/lib.so is not a file" in text
    assert "takes no knobs" in text


def test_a_knob_that_the_installed_version_does_not_know_is_refused_with_the_version_that_does() -> None:
    allocator = register()["glibc"]
    old = Found(allocator, here=True, version="2.31", version_numbers=(2, 31))
    knob = allocator.knob("hugetlb")
    assert knob is not None
    assert not knob.known_in(old.version_numbers)
    assert knob.known_in((2, 36))
    assert knob.known_in(None)


def test_a_library_without_malloc_and_a_file_that_is_no_library_are_refused(tmp_path) -> None:
    fake = tmp_path / "libfake.so"
    fake.write_text("no library")
    with pytest.raises(HeapsmithError, match=r"invalid ELF header|file too short"):
        read_candidate(str(fake))
    with pytest.raises(HeapsmithError, match="does not define malloc"):
        read_candidate(next(line for line in _mapped() if "/libm." in line or "/libz." in line))


def _mapped() -> list[str]:
    import ctypes

    ctypes.CDLL("libm.so.6")
    lines = Path("/proc/self/maps").read_text().splitlines()
    return [line.split()[-1] for line in lines if line.endswith((".so.6", ".so.1"))]


def test_the_same_candidate_twice_gets_two_labels_so_that_it_can_be_compared_with_itself() -> None:
    assert [c.label for c in read_candidates(["glibc", "glibc", "glibc"])] == [
        "glibc",
        "glibc #2",
        "glibc #3",
    ]


def test_other_allocators_are_taken_out_of_the_environment_and_all_else_stays() -> None:
    before = {
        "LANG": "C",
        "LD_PRELOAD": "/usr/lib/libjemalloc.so.2 /opt/libmine.so",
        "MALLOC_CONF": "narenas:1",
        "MALLOC_ARENA_MAX": "2",
        "GLIBC_TUNABLES": "glibc.rtld.nns=4:glibc.malloc.arena_max=3",
        "PYTHONMALLOC": "malloc",
    }
    after = read_candidate("glibc:arena_max=1").environment(before)
    assert after == {
        "LANG": "C",
        "LD_PRELOAD": "/opt/libmine.so",
        "GLIBC_TUNABLES": "glibc.rtld.nns=4:glibc.malloc.arena_max=1",
        "PYTHONMALLOC": "malloc",
    }
    pymalloc = read_candidate("glibc:python=pymalloc").environment(before)
    assert pymalloc == {
        "LANG": "C",
        "LD_PRELOAD": "/opt/libmine.so",
        "PYTHONMALLOC": "pymalloc",
        "GLIBC_TUNABLES": "glibc.rtld.nns=4",
    }
    assert read_candidate("system").environment(before) == before


def test_adding_an_allocator_is_adding_a_file(tmp_path, monkeypatch) -> None:
    from heapsmith.peers import allocators

    (tmp_path / "newalloc.py").write_text(
        "from heapsmith.peers.allocator import Allocator, tells\n"
        "ALLOCATOR = Allocator(name='newalloc', title='New', identified_by='newalloc', knobs=(),\n"
        "                      spell=lambda values, version: {}, fields=tells(), libraries=('libn.so',))\n"
    )
    monkeypatch.setattr(allocators, "__path__", [*allocators.__path__, str(tmp_path)])
    register.cache_clear()
    try:
        assert "newalloc" in register()
    finally:
        register.cache_clear()


@pytest.mark.parametrize("variable", ["VIRTUAL_ENV", "CONDA_PREFIX"])
def test_libraries_of_the_active_environment_are_found_also_inside_of_wheels(
    tmp_path, monkeypatch, variable
) -> None:
    inside = tmp_path / "lib" / "python3.12" / "site-packages" / "cmeel.prefix" / "lib"
    inside.mkdir(parents=True)
    monkeypatch.setenv(variable, str(tmp_path))
    library_folders.cache_clear()
    try:
        folders = library_folders()
    finally:
        library_folders.cache_clear()
    assert tmp_path / "lib" in folders
    assert inside in folders


def test_what_is_absent_says_how_to_get_it() -> None:
    for allocator in register().values():
        assert allocator.install or allocator.note, allocator.name
        assert all(way.words() in allocator.how_to_get() for way in allocator.install)


def test_a_candidate_crosses_a_wire_unchanged() -> None:
    import msgspec

    made = read_candidate("glibc:arena_max=1,hugetlb=1")
    assert msgspec.json.decode(msgspec.json.encode(made), type=Candidate) == made
