"""The line to put where a program is started: shell, environment file, systemd, Dockerfile, Kubernetes."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Final, Literal, get_args

from heapsmith.native import preloadable
from heapsmith.peers.allocator import Install
from heapsmith.peers.candidate import Candidate
from heapsmith.peers.preload import find_neighbours, is_of_the_system
from heapsmith.peers.register import register
from heapsmith.spec import presets

Place = Literal["env", "shell", "systemd", "docker", "k8s"]
PLACES: tuple[Place, ...] = get_args(Place)
_FOLDER: Final = "/usr/local/lib"
_APT: Final = "apt-get install "


def render_lines(candidate: Candidate, place: Place) -> str:
    """Write what a candidate needs, ready to paste; comments say how its library gets there.

    Args:
        candidate: What to use.
        place: Where it goes.

    Example:
        >>> from heapsmith.peers.candidate import read_candidate
        >>> print(render_lines(read_candidate("glibc:arena_max=1"), "systemd"))
        [Service]
        Environment="GLIBC_TUNABLES=glibc.malloc.arena_max=1"
    """
    in_image = place in ("docker", "k8s")
    path = _path_there(candidate, in_image=in_image)
    variables = candidate.lines()
    if path is not None:
        folder = Path(path).parent
        variables["LD_PRELOAD"] = ":".join(
            [*(str(folder / one.name) for one in _neighbours(candidate)), path]
        )
    written = sorted(variables.items(), key=lambda item: item[0] != "LD_PRELOAD")
    if place == "docker":
        return _docker(candidate, path, written)
    if place == "k8s":
        entries = (f"  - name: {name}\n    value: {json.dumps(value)}" for name, value in written)
        return "\n".join([*_needed_in_image(candidate, path), "env:", *entries])
    remarks = _remarks_here(candidate, path)
    if place == "env":
        return "\n".join([*remarks, *(f"{name}={value}" for name, value in written)])
    if place == "shell":
        return "\n".join([*remarks, *(f"export {name}={shlex.quote(value)}" for name, value in written)])
    # A percent sign starts a specifier in unit files.
    lines = (f'Environment="{name}={value.replace("%", "%%")}"' for name, value in written)
    return "\n".join([*remarks, "[Service]", *lines])


def _path_there(candidate: Candidate, *, in_image: bool) -> str | None:
    """Where the library is for whoever pastes the line: where it is now, if it is there too and can be written there."""
    library = candidate.library
    if library is None:
        return None
    stays = is_of_the_system(Path(library)) if in_image else str(preloadable(Path(library))) == library
    return library if stays else f"{_FOLDER}/{_name_there(candidate)}"


def _neighbours(candidate: Candidate) -> tuple[Path, ...]:
    return () if candidate.library is None else find_neighbours(Path(candidate.library))


def _name_there(candidate: Candidate) -> str:
    if _made_by(candidate) is not None:
        return f"libheapsmith_{Path(candidate.allocator).stem}.so"
    return "".join(
        letter if letter.isalnum() or letter in "._-" else "_"
        for letter in Path(candidate.library or "").name
    )


def _made_by(candidate: Candidate) -> str | None:
    """The command that makes a heap of ours anew; None for what others made."""
    is_ours = candidate.allocator in presets() or candidate.allocator.endswith(".toml")
    return f"heapsmith forge {shlex.quote(candidate.allocator)}" if is_ours else None


def _brought_by(candidate: Candidate, target: str) -> str:
    """The command that puts the library into a file, and what it needs beside it."""
    made_by = _made_by(candidate)
    if made_by:
        return f"{made_by} -o {target}"
    folder = Path(target).parent
    pairs = [(str(one), str(folder / one.name)) for one in _neighbours(candidate)]
    pairs.append((candidate.library or "", target))
    return " && ".join(f"cp {shlex.quote(here)} {there}" for here, there in pairs)


def _remarks_here(candidate: Candidate, path: str | None) -> list[str]:
    if path is not None and path != candidate.library:
        return [f"# beforehand: {_brought_by(candidate, path)}"]
    if _made_by(candidate) is None:
        return []
    lasting = f"{_FOLDER}/{_name_there(candidate)}"
    return [f"# there as long as this heapsmith; for good: {_brought_by(candidate, lasting)}"]


def _docker(candidate: Candidate, path: str | None, variables: list[tuple[str, str]]) -> str:
    lines: list[str] = []
    package = _debian_package(candidate)
    if package is not None:
        lines += [f"# {package.where}"] if package.where else []
        name = package.command.removeprefix(_APT)
        lines.append(
            f"RUN apt-get update && apt-get install -y --no-install-recommends {name}"
            " && rm -rf /var/lib/apt/lists/*"
        )
    elif path is not None and path != candidate.library:
        name = Path(path).name
        copies = [f"COPY {one} {_FOLDER}/{one}" for one in (*(n.name for n in _neighbours(candidate)), name)]
        lines += [f"# beforehand: {_brought_by(candidate, name)}", *copies]
    words = (f"{name}={json.dumps(value)}" for name, value in variables)
    return "\n".join([*lines, "ENV " + " \\\n    ".join(words)])


def _needed_in_image(candidate: Candidate, path: str | None) -> list[str]:
    package = _debian_package(candidate)
    if package is not None:
        where = f" ({package.where})" if package.where else ""
        return [f"# the image needs: {package.command}{where}"]
    if path is None:
        return []
    if path == candidate.library:
        return [f"# the image needs {path}"]
    return [f"# the image needs {path}: {_brought_by(candidate, Path(path).name)}, and COPY it there"]


def _debian_package(candidate: Candidate) -> Install | None:
    allocator = register().get(candidate.allocator)
    if allocator is None or candidate.library is None or not is_of_the_system(Path(candidate.library)):
        return None
    return next((way for way in allocator.install if way.command.startswith(_APT)), None)
