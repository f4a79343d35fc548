"""From a spec to one shared object: rendered, compiled, verified, kept by the hash of all that went into it."""

from heapsmith.forge.amalgamate import render_header
from heapsmith.forge.compiler import Compiler, find_compiler
from heapsmith.forge.library import Forged, forge, preset_library, write_header
from heapsmith.forge.render import render_config

__all__ = [
    "Compiler",
    "Forged",
    "find_compiler",
    "forge",
    "preset_library",
    "render_config",
    "render_header",
    "write_header",
]
