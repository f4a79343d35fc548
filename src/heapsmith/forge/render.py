"""A spec as the C++ header that composes it: types, and the numbers Python promises that the compiler compares."""

from __future__ import annotations

from heapsmith.spec import HeapSpec

_HEADERS = ("heap/heap.h", "policy/pages/pipe.h")


def render_config(spec: HeapSpec) -> str:
    """Write ``heap_config.h`` for a heap.

    Returns:
        C++ source that defines ``hs::SpecHeap``.

    Example:
        >>> from heapsmith.spec import load_spec
        >>> "using SpecSizes = PowersOfTwo<16, 32768>;" in render_config(load_spec("pow2"))
        True
    """
    headers = sorted({*_HEADERS, *(policy.header for _, policy in spec.policies())})
    classes = spec.sizes.class_bytes()
    return "\n".join(
        [
            f'// The heap "{spec.name}", rendered from its spec: change that, not this.',
            "#pragma once",
            "",
            *(f'#include "{header}"' for header in headers),
            "",
            "namespace hs {",
            "",
            f'inline constexpr char spec_name[] = "{spec.name}";',
            f"using SpecSizes = {spec.sizes.cpp()};",
            f"using SpecPages = {spec.pages.cpp()};",
            f"using SpecHeap = Heap<SpecSizes, {spec.cache.cpp()}, {spec.remote.cpp()}, SpecPages, {spec.lock.cpp()}>;",
            "",
            "// What Python promised.",
            f"static_assert(same_classes<SpecSizes>({{{', '.join(map(str, classes))}}}));",
            "",
            "}  // namespace hs",
            "",
        ]
    )
