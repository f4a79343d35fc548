"""The colours of every picture, for light and dark, told apart by people with any colour vision.

The hues are those of Okabe and Ito (https://jfly.uni-koeln.de/color/), lightened or darkened for contrast
with the ground; the heat map is one hue from ground to ink, so that it reads by lightness alone.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Ink(NamedTuple):
    """One colour on a light and on a dark ground."""

    light: str
    dark: str


TEXT: Final = Ink("#4b5563", "#9aa7b5")
GRID: Final = Ink("#e3e7ec", "#232d38")
LIVE: Final = Ink("#0072b2", "#56b4e9")
PEAK: Final = Ink("#0072b2", "#56b4e9")
RESIDENT: Final = Ink("#7a8594", "#8d99a8")
MAPPED: Final = Ink("#00825f", "#2fc49a")
LIMIT: Final = Ink("#c94a00", "#ff7a3d")
WARN_AT: Final = Ink("#b07900", "#f0b93a")
ALLOCATIONS: Final = Ink("#0072b2", "#56b4e9")
FREES: Final = Ink("#a8568a", "#e29fc7")

_STEPS: Final = 64
_HEAT_LIGHT: Final = ((236, 243, 249), (107, 174, 214), (33, 113, 181), (8, 40, 90))
_HEAT_DARK: Final = ((24, 40, 56), (16, 88, 142), (86, 180, 233), (235, 248, 255))


def _ramp(anchors: tuple[tuple[int, int, int], ...]) -> list[str]:
    colours: list[str] = []
    for step in range(_STEPS):
        place = step / (_STEPS - 1) * (len(anchors) - 1)
        first = min(int(place), len(anchors) - 2)
        share = place - first
        mixed = (round(a + share * (b - a)) for a, b in zip(anchors[first], anchors[first + 1], strict=True))
        colours.append("#{:02x}{:02x}{:02x}".format(*mixed))
    return colours


HEAT_LIGHT: Final = _ramp(_HEAT_LIGHT)
HEAT_DARK: Final = _ramp(_HEAT_DARK)
