"""The line to put where a program is started: shell, environment file, systemd, Dockerfile, Kubernetes."""

from __future__ import annotations

import json
import re
import shlex
from typing import Final, Literal, get_args

from heapsmith.peers.candidate import Candidate
from heapsmith.peers.register import register
from heapsmith.spec import presets

Place = Literal["env", "shell", "systemd", "docker", "k8s"]
_IN_IMAGE: Final = "/usr/local/lib/heapsmith-heap.so"
PLACES: tuple[Place, ...] = get_args(Place)


def render_lines(candidate: Candidate, place: Place) -> str:
    """Write what a candidate needs, ready to paste.

    Args:
        candidate: What to use.
        place: Where it goes.

    Example:
        >>> from heapsmith.peers.candidate import read_candidate
        >>> print(render_lines(read_candidate("glibc:arena_max=1"), "systemd"))
        [Service]
        Environment="GLIBC_TUNABLES=glibc.malloc.arena_max=1"
    """
    variables = sorted(candidate.lines().items(), key=lambda item: item[0] != "LD_PRELOAD")
    if place == "env":
        return "\n".join(f"{name}={value}" for name, value in variables)
    if place == "shell":
        return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in variables)
    if place == "systemd":
        # A percent sign starts a specifier in unit files.
        lines = (f'Environment="{name}={value.replace("%", "%%")}"' for name, value in variables)
        return "\n".join(["[Service]", *lines])
    forged = _made_by(candidate)
    if place == "docker":
        words = " \\\n    ".join(f"{name}={json.dumps(value)}" for name, value in variables)
        package = _debian_package(candidate)
        install = (
            f"RUN apt-get update && apt-get install -y --no-install-recommends {package}"
            " && rm -rf /var/lib/apt/lists/*\n"
            if package
            else ""
        )
        if forged:
            words = words.replace(json.dumps(candidate.library), f'"{_IN_IMAGE}"')
            install = f"# beforehand: {forged} -o heap.so\nCOPY heap.so {_IN_IMAGE}\n"
        return f"{install}ENV {words}"
    if forged:
        variables = [(name, value.replace(candidate.library or "", _IN_IMAGE)) for name, value in variables]
    entries = "".join(f"\n  - name: {name}\n    value: {json.dumps(value)}" for name, value in variables)
    note = f"# in the image, {_IN_IMAGE} is what `{forged} -o heap.so` makes\n" if forged else ""
    return f"{note}env:{entries}"


def _made_by(candidate: Candidate) -> str | None:
    """The command that makes a heap of ours anew; None for what others made."""
    is_ours = candidate.allocator in presets() or candidate.allocator.endswith(".toml")
    return f"heapsmith forge {shlex.quote(candidate.allocator)}" if is_ours else None


def _debian_package(candidate: Candidate) -> str | None:
    allocator = register().get(candidate.allocator)
    if allocator is None or candidate.library is None or not candidate.library.startswith("/usr/lib/"):
        return None
    match = re.search(r"apt-get install (\S+)", dict(allocator.install).get("apt-get", ""))
    return match[1] if match else None
