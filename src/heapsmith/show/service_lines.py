"""The line to put where a program is started: shell, environment file, systemd, Dockerfile, Kubernetes."""

from __future__ import annotations

import json
import re
import shlex
from typing import Literal, get_args

from heapsmith.peers.candidate import Candidate
from heapsmith.peers.register import register

Place = Literal["env", "shell", "systemd", "docker", "k8s"]
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
    if place == "docker":
        words = " \\\n    ".join(f"{name}={json.dumps(value)}" for name, value in variables)
        package = _debian_package(candidate)
        install = (
            f"RUN apt-get update && apt-get install -y --no-install-recommends {package}"
            " && rm -rf /var/lib/apt/lists/*\n"
            if package
            else ""
        )
        return f"{install}ENV {words}"
    entries = "".join(f"\n  - name: {name}\n    value: {json.dumps(value)}" for name, value in variables)
    return f"env:{entries}"


def _debian_package(candidate: Candidate) -> str | None:
    allocator = register().get(candidate.allocator)
    if allocator is None or candidate.library is None or not candidate.library.startswith("/usr/lib/"):
        return None
    match = re.search(r"apt-get install (\S+)", dict(allocator.install).get("apt-get", ""))
    return match[1] if match else None
