"""A run as a picture: in a notebook by itself, or saved as a player, a drawing or pixels."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from heapsmith.errors import HeapsmithError
from heapsmith.osmem import Model, Script, parse_script, play
from heapsmith.osmem.story import Scene, tell
from heapsmith.outputs import write_output
from heapsmith.show.osmem.player import render_player
from heapsmith.show.osmem.png import render_png
from heapsmith.show.osmem.sheet import draw_sheet
from heapsmith.show.osmem.svg import render_svg

SUFFIXES = (".html", ".svg", ".png")


class HeapDrawing:
    """The pictures of a script: put it at the end of a notebook's cell to see the player there.

    Args:
        script: The script, parsed or as text.
        model: A fresh model; the default rules when left out.
        steps: The first and last step to show, from 1; all when left out.

    Raises:
        ScriptError: The script cannot be run.
        HeapsmithError: The script does nothing, or has no such steps.

    Example:
        >>> drawing = HeapDrawing("p = malloc 100")
        >>> [scene.headline for scene in drawing.scenes]
        ['first use of the heap: p gets its beginning']
        >>> drawing.svg()[:4]
        '<svg'
    """

    def __init__(
        self, script: Script | str, model: Model | None = None, steps: tuple[int, int] | None = None
    ) -> None:
        parsed = parse_script(script) if isinstance(script, str) else script
        model = model or Model()
        scenes: Sequence[Scene] = tell(play(parsed, model), model.fit)
        if not scenes:
            raise HeapsmithError(
                f"{parsed.source} has nothing to draw", "it makes no call", "write: p = malloc 1000"
            )
        if steps is not None:
            first, last = steps
            if not 1 <= first <= last <= len(scenes):
                raise HeapsmithError(
                    f"there are no steps {first} to {last}", f"{parsed.source} has {len(scenes)}"
                )
            scenes = scenes[first - 1 : last]
        self.scenes = scenes
        self.title = Path(parsed.source).name
        policies = [f"layout {model.layout}, {model.header_bytes}-byte headers", f"{model.fit} fit"]
        policies += [] if model.coalesce == "before-search" else [f"coalesce {model.coalesce}"]
        policies += [] if model.splits else ["no splitting"]
        self.subtitle = ", ".join(policies)

    def html(self) -> str:
        """Write the player: one file that needs nothing else."""
        return render_player(self.scenes, self.title, self.subtitle)

    def svg(self) -> str:
        """Write all steps on one sheet, as SVG."""
        return render_svg(draw_sheet(self.scenes, self.title, self.subtitle), label=self.title)

    def png(self) -> bytes:
        """Write all steps on one sheet, as PNG."""
        return render_png(draw_sheet(self.scenes, self.title, self.subtitle))

    def save(self, path: Path) -> None:
        """Write a file; its suffix says which kind.

        Raises:
            HeapsmithError: The suffix is none of ``.html``, ``.svg``, ``.png``, or the file cannot be
                written.
        """
        match path.suffix.lower():
            case ".html":
                content = self.html().encode()
            case ".svg":
                content = self.svg().encode()
            case ".png":
                content = self.png()
            case suffix:
                raise HeapsmithError(
                    f"cannot draw {path}",
                    f"{suffix or 'no suffix'} is no kind of picture",
                    f"one of: {', '.join(SUFFIXES)}",
                )
        write_output(path, content)

    def _repr_html_(self) -> str:
        # A frame keeps the player's styles and keys apart from the notebook's.
        return (
            f'<iframe srcdoc="{escape(self.html(), quote=True)}" title="{escape(self.title, quote=True)}" '
            'style="width:100%;height:760px;border:0"></iframe>'
        )

    def _repr_svg_(self) -> str:
        return self.svg()
