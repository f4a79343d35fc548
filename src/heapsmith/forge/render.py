"""A spec as the C++ header that composes it: types, and the numbers Python promises that the compiler compares."""

from __future__ import annotations

from heapsmith.spec import EncodedLinks, HeapSpec, RandomFreeLists, ZeroOnFree

_HEADERS = ("heap/heap.h", "policy/pages/at_start.h", "policy/pages/pipe.h")


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
    slots = ["SpecSizes", spec.cache.cpp(), spec.remote.cpp(), "SpecPages", spec.lock.cpp(), _links(spec)]
    if _hardened(spec) != "SpecBlocks":
        headers = sorted({*headers, "heap/hardened.h", "policy/links/scrubbed_links.h"})
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
            f"using SpecSizes = {_sizes(spec)};",
            f"using SpecPages = {spec.pages.cpp()};",
            f"using SpecBlocks = Heap<{', '.join(slots)}>;",
            f"using SpecHeap = {_hardened(spec)};",
            "",
            "// What Python promised.",
            f"static_assert(same_classes<SpecSizes>({{{', '.join(map(str, classes))}}}));",
            "",
            "}  // namespace hs",
            "",
        ]
    )


def _sizes(spec: HeapSpec) -> str:
    if not spec.threads:
        return spec.sizes.cpp()
    return f"ForThreads<{spec.sizes.cpp()}, {', '.join(thread.cpp() for thread in spec.threads)}>"


def _links(spec: HeapSpec) -> str:
    links = "PlainLinks"
    if any(isinstance(policy, EncodedLinks) for policy in spec.hardening):
        links = "EncodedLinks"
    if any(isinstance(policy, ZeroOnFree) for policy in spec.hardening):
        links = f"ScrubbedLinks<{links}>"
    if any(isinstance(policy, RandomFreeLists) for policy in spec.hardening):
        links = f"RandomFreeLists<{links}>"
    return links


def _hardened(spec: HeapSpec) -> str:
    looks = [
        policy.cpp() for policy in spec.hardening if not isinstance(policy, EncodedLinks | RandomFreeLists)
    ]
    return f"Hardened<SpecBlocks, {', '.join(looks)}>" if looks else "SpecBlocks"
