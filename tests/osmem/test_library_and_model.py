from __future__ import annotations

import pytest
from agreement import assert_library_and_model_agree
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heapsmith.osmem.blocks import Layout
from heapsmith.osmem.scenarios import SCENARIOS, random_lines

SIZES = st.one_of(
    st.integers(0, 64),
    st.integers(0, 3000),
    st.integers(0, 300_000),
    st.sampled_from(
        [4040, 4048, 4064, 4072, 4080, 4096, 131_024, 131_032, 131_040, 131_048, 131_056, 131_064, 131_072]
    ),
    st.sampled_from([1 << 30, 1 << 40, (1 << 63) - 40, (1 << 63) - 1, (1 << 64) - 8, (1 << 64) - 1]),
)


@st.composite
def scripts(draw: st.DrawFn) -> str:
    """Scripts that a careful programmer could have written, and some things that rules exist for."""
    lines: list[str] = []
    live: list[str] = []
    for number in range(draw(st.integers(1, 60))):
        name = f"p{number}"
        kind = draw(st.sampled_from(["malloc"] * 4 + ["calloc"] + ["realloc"] * 3 + ["free"] * 3 + ["odd"]))
        if kind == "malloc" or (not live and kind in {"realloc", "free"}):
            lines.append(f"{name} = malloc {draw(SIZES)}")
            live.append(name)
        elif kind == "calloc":
            lines.append(f"{name} = calloc {draw(st.integers(0, 70))} {draw(st.integers(0, 5000))}")
            live.append(name)
        elif kind == "realloc":
            resized = draw(st.sampled_from(live))
            lines.append(f"{resized} = realloc {resized} {draw(SIZES.filter(bool))}")
        elif kind == "free":
            lines.append(f"free {live.pop(draw(st.integers(0, len(live) - 1)))}")
        else:
            lines.append(
                draw(
                    st.sampled_from(
                        [
                            "free NULL",
                            f"{name} = realloc NULL 100",
                            f"{name} = calloc 4294967296 4294967296",
                            f"q{number} = malloc 64\nfree q{number}\nr{number} = realloc q{number} 5",
                            f"q{number} = malloc 64\nr{number} = realloc q{number} 0",
                        ]
                    )
                )
            )
    return "\n".join(lines)


@pytest.mark.parametrize("layout", ["v1", "v2"])
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=scripts())
def test_library_and_model_agree_on_any_script(layout: Layout, text: str) -> None:
    assert_library_and_model_agree(text, layout)


@pytest.mark.parametrize("layout", ["v1", "v2"])
def test_library_and_model_agree_on_long_random_programs(layout: Layout) -> None:
    header = {"v1": 24, "v2": 32}[layout]
    for seed in range(60):
        assert_library_and_model_agree("\n".join(random_lines(seed, 120, header)), layout)


@pytest.mark.parametrize("layout", ["v1", "v2"])
def test_library_and_model_agree_on_every_scenario(layout: Layout) -> None:
    for scenario in SCENARIOS:
        assert_library_and_model_agree(scenario.script({"v1": 24, "v2": 32}[layout]), layout)
