"""The rendered configurations of the presets, which the build compiles: kept beside the native sources.

python -m heapsmith.forge.presets [--check]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from heapsmith.forge.render import render_config
from heapsmith.native import SOURCES
from heapsmith.spec import load_spec, presets

DIRECTORY: Final = SOURCES / "presets"


def rendered() -> dict[Path, str]:
    """Render every preset.

    Returns:
        Source by the file it belongs into.

    Example:
        >>> sorted(path.parent.name for path in rendered())[0]
        'default'
    """
    return {DIRECTORY / name / "heap_config.h": render_config(load_spec(name)) for name in presets()}


def stale() -> list[Path]:
    """Return the files that are not what their presets render to."""
    return [path for path, text in rendered().items() if not path.is_file() or path.read_text() != text]


if __name__ == "__main__":
    if "--check" in sys.argv[1:]:
        sys.exit(f"stale: {', '.join(map(str, found))}" if (found := stale()) else 0)
    for file, source in rendered().items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source)
