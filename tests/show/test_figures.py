from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
from bokeh.models import ColumnDataSource
from hypothesis import given
from hypothesis import strategies as st

import believable
from heapsmith.run.history import Curve
from heapsmith.run.sockets import find_user_of_connection
from heapsmith.run.values import Event, Process, SizeClass
from heapsmith.show import figures
from heapsmith.show.page.door import names_of_host
from heapsmith.units import GiB, MiB


def curve_of(polls: list[Process]) -> Curve:
    curve = Curve()
    for process in polls:
        curve.add(process)
    return curve


def with_classes(time_s: float, live: dict[int | None, int]) -> Process:
    rows = [SizeClass(size, 1, 0, 0, 1, value, value, value) for size, value in live.items()]
    return msgspec.structs.replace(believable.empty(), time_s=time_s, size_classes=rows)


def test_columns_over_time_continue_where_they_were_cut() -> None:
    curve = curve_of([believable.process(float(second)) for second in range(1, 30)])
    whole, rest = figures.time_columns(curve), figures.time_columns(curve, 20)
    for name in figures.TIME_COLUMNS:
        assert len(rest[name]) == 9
        np.testing.assert_array_equal(rest[name], whole[name][20:])


@given(st.lists(st.integers(0, 1 << 40), min_size=1, max_size=400))
def test_no_peak_is_lost_when_polls_become_steps_of_the_heat_map(lives: list[int]) -> None:
    heat = figures.compute_heat(curve_of([with_classes(s + 1.0, {24: v}) for s, v in enumerate(lives)]))
    assert heat.highest_bytes == float(np.float32(max(lives)))
    if max(lives):
        assert np.nanmax(heat.image) == np.float32(max(lives))
        assert heat.image.shape == (1, figures.HEAT_STEPS)


def test_a_heat_map_of_many_classes_has_a_row_for_each_doubling_and_adds_up() -> None:
    sizes: dict[int | None, int] = {16 * place + 8: 1 << 20 for place in range(1, 65)}
    heat = figures.compute_heat(curve_of([with_classes(1.0, sizes), with_classes(2.0, sizes)]))
    assert heat.labels == ["≤ 24 B", "≤ 40 B", "≤ 72 B", "≤ 136 B", "≤ 264 B", "≤ 520 B", "≤ 1 KiB"]
    assert heat.image[:, -1].sum() == 64 << 20


def test_a_class_that_never_held_anything_has_no_row() -> None:
    heat = figures.compute_heat(curve_of([with_classes(1.0, {24: 100, 40: 0, None: 7})]))
    assert heat.labels == ["≤ 24 B", "> 40 B"]


def test_a_limit_far_above_the_curves_does_not_flatten_them() -> None:
    source = ColumnDataSource(figures.time_columns(Curve()))
    picture = figures.memory_figure(source, ColumnDataSource(figures.mark_columns([])), figures.time_range())

    def stretches(limit_bytes: int) -> bool:
        curve = curve_of([believable.process(30, limit_bytes=limit_bytes)])
        figures.fit_memory(picture, figures.time_columns(curve))
        assert picture.legend["limit_bytes"].visible
        return picture.lines["limit_bytes"] in picture.y_range.renderers

    assert stretches(600 * MiB)
    assert not stretches(100 * GiB)


def test_marks_tell_warnings_failures_and_changes_apart() -> None:
    kinds = ["warning", "refused", "out_of_memory", "limit_changed"]
    marks = figures.mark_columns([Event(1.0, kind, 1, 5, 4, 3) for kind in kinds])
    assert marks["marker"] == ["triangle", "x", "x", "diamond"]
    assert len(set(marks["what"])) == 4


def test_the_user_of_a_connection_is_found_in_the_kernels_table(tmp_path: Path) -> None:
    table = tmp_path / "tcp"
    table.write_text(
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
        "   0: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000  1000        0 1\n"
        "   1: 0100007F:C350 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1001        0 2\n"
    )
    assert find_user_of_connection("127.0.0.1", 50000, (table,)) == 1001
    assert find_user_of_connection("127.0.0.1", 8080, (table,)) == 1000
    assert find_user_of_connection("127.0.0.1", 1, (table, tmp_path / "missing")) is None
    assert find_user_of_connection("no address", 50000, (table,)) is None


def test_a_page_on_all_addresses_is_known_by_every_name_of_the_machine() -> None:
    assert {"localhost", "127.0.0.1", "[::1]"} <= names_of_host("0.0.0.0")
    assert names_of_host("192.0.2.7") == {"192.0.2.7"}
    assert names_of_host("::1") == {"localhost", "[::1]"}
