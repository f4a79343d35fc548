from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heapsmith.errors import HeapsmithError
from heapsmith.units import (
    UNKNOWN,
    format_bytes,
    format_count,
    format_seconds,
    parse_bytes,
    parse_seconds,
)


@given(st.integers(0, (1 << 63) - 1))
def test_a_plain_number_is_read_back_exactly(value: int) -> None:
    assert parse_bytes(str(value)) == value


@given(st.integers(0, 1 << 22), st.sampled_from(["KiB", "MiB", "GiB", "TiB"]))
def test_units_are_binary(count: int, unit: str) -> None:
    factor = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}[unit]
    assert parse_bytes(f"{count}{unit}") == count * factor


@given(st.integers(0, 1 << 50))
def test_what_is_written_reads_back_within_a_percent(value: int) -> None:
    assert parse_bytes(format_bytes(value)) == pytest.approx(value, rel=0.01)


@pytest.mark.parametrize("text", ["", "abc", "-1", "1 XiB", "1e6", "0x10", "9" * 30, "1MiB2", "٣"])
def test_what_is_no_number_of_bytes_is_refused(text: str) -> None:
    with pytest.raises(HeapsmithError):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("10ms", 0.01), ("2s", 2.0), ("5m", 300.0), ("1.5", 1.5), ("3us", 3e-6)]
)
def test_durations_are_read_as_people_write_them(text: str, seconds: float) -> None:
    assert parse_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "soon", "-1s", "5 parsecs"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(HeapsmithError):
        parse_seconds(text)


def test_unknown_is_never_written_as_zero() -> None:
    assert {format_bytes(None), format_count(None), format_seconds(None)} == {UNKNOWN}
