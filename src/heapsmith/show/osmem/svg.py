"""A picture as SVG: alone it follows the reader's light or dark setting, inside a page the page's."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from heapsmith.show.osmem.shapes import INKS, Group, Label, Path, Picture, Rect, Shape


def colour_rules() -> str:
    """Write the colours as CSS variables: by the reader's setting, or by ``data-theme``."""
    light = "".join(f"--{name}:{colours[0]};" for name, colours in INKS.items())
    dark = "".join(f"--{name}:{colours[1]};" for name, colours in INKS.items())
    return (
        f":root{{{light}color-scheme:light dark}}"
        f"@media(prefers-color-scheme:dark){{:root{{{dark}}}}}"
        f':root[data-theme="light"]{{{light}color-scheme:light}}'
        f':root[data-theme="dark"]{{{dark}color-scheme:dark}}'
    )


def shape_rules() -> str:
    """Write the CSS that the elements of a picture rely on."""
    fills = "".join(f".f-{name}{{fill:var(--{name})}}.e-{name}{{stroke:var(--{name})}}" for name in INKS)
    # No rule looks at an element's parents: in a `use`, they are not where the rule could see them.
    return (
        f"{fills}.heap{{font-family:system-ui,-apple-system,'Segoe UI',Roboto,Helvetica,Arial,sans-serif;"
        "stroke-linejoin:round}"
        ".t-mono{font-family:ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace}"
        ".t-bold{font-weight:600}.t-middle{text-anchor:middle}.t-end{text-anchor:end}"
        ".f-none{fill:none}.dashed{stroke-dasharray:4 3}"
    )


class Repeated:
    """The groups of a page's pictures, each written once and referred to by its number.

    Example:
        >>> repeated, square = Repeated(), Rect(0, 0, 8, 8, "free")
        >>> repeated.use(Group((square,))), repeated.use(Group((square,)))
        ('<use href="#g0"/>', '<use href="#g0"/>')
    """

    def __init__(self) -> None:
        self._numbers: dict[Group, int] = {}

    def use(self, group: Group) -> str:
        """Write a reference to a group."""
        return f'<use href="#g{self._numbers.setdefault(group, len(self._numbers))}"/>'

    def definitions(self) -> str:
        """Write all groups that were referred to, in an element that shows nothing itself."""
        groups = "".join(
            f'<g id="g{number}">{"".join(_elements(group.marks, None))}</g>'
            for group, number in self._numbers.items()
        )
        attributes = 'class="heap" width="0" height="0" style="position:absolute" aria-hidden="true"'
        return f"<svg {attributes}><defs>{groups}</defs></svg>"


def render_svg(
    picture: Picture, *, alone: bool = True, label: str = "The heap", repeated: Repeated | None = None
) -> str:
    """Write a picture as an SVG element.

    Args:
        picture: What to draw.
        alone: Whether it is a file of its own, with its own colours, or part of a page that has them.
        label: What it shows, for those who cannot see it.
        repeated: Where the page keeps what comes again; without it everything is written out.
    """
    size = f'viewBox="0 0 {_number(picture.width)} {_number(picture.height)}"'
    if alone:
        size += f' width="{_number(picture.width)}" height="{_number(picture.height)}"'
    style = f"<style>{colour_rules()}{shape_rules()}</style>" if alone else ""
    ground = (
        f'<rect class="f-ground" width="{_number(picture.width)}" height="{_number(picture.height)}"/>'
        if alone
        else ""
    )
    body = "".join(_elements(picture.shapes, repeated))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="heap" {size} role="img" '
        f'aria-label="{escape(label)}">{style}{ground}{body}</svg>'
    )


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _elements(shapes: tuple[Shape, ...], repeated: Repeated | None) -> Iterator[str]:
    for shape in shapes:
        match shape:
            case Group():
                yield repeated.use(shape) if repeated else "".join(_elements(shape.marks, None))
            case Rect():
                title = f"<title>{escape(shape.title)}</title></rect>" if shape.title else "</rect>"
                yield (
                    f'<rect x="{_number(shape.x)}" y="{_number(shape.y)}" width="{_number(shape.width)}" '
                    f'height="{_number(shape.height)}"{_paint(shape)}>{title}'
                )
            case Path():
                points = " ".join(f"{_number(x)},{_number(y)}" for x, y in shape.points)
                element = "polygon" if shape.fill else "polyline"
                yield f'<{element} points="{points}"{_paint(shape)}/>'
            case Label():
                classes = [f"f-{shape.ink}"]
                classes += ["t-mono"] * shape.mono + ["t-bold"] * shape.bold
                classes += [f"t-{shape.anchor}"] * (shape.anchor != "start")
                yield (
                    f'<text x="{_number(shape.x)}" y="{_number(shape.y)}" font-size="{_number(shape.size)}" '
                    f'class="{" ".join(classes)}">{escape(shape.text)}</text>'
                )


def _paint(shape: Rect | Path) -> str:
    classes = [f"f-{shape.fill or 'none'}"]
    width = ""
    if shape.edge:
        classes.append(f"e-{shape.edge}")
        edge_width = shape.edge_width if isinstance(shape, Rect) else shape.width
        width = f' stroke-width="{_number(edge_width)}"' if edge_width != 1 else ""
        classes += ["dashed"] * shape.dashed
    return f' class="{" ".join(classes)}"{width}'
