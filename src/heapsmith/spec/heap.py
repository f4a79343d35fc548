"""The value that describes a whole heap, its problems, and what it costs in words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

import msgspec

from heapsmith.errors import SpecError
from heapsmith.spec.policies import (
    BoundedCache,
    CachePolicy,
    CheckedBlocks,
    EncodedLinks,
    ForThread,
    FutexLock,
    Geometric,
    HardeningPolicy,
    HugePages,
    Limit,
    LockPolicy,
    NoCache,
    NoLock,
    OsPages,
    PagePipe,
    PagesPolicy,
    Policy,
    Prefault,
    PurgeAfter,
    PurgeAtOnce,
    PurgeOnDemand,
    RandomFreeLists,
    RemoteBatch,
    RemotePolicy,
    RemoteStack,
    SizesPolicy,
)
from heapsmith.spec.size_classes import PAGE_BYTES, worst_unused_ratio
from heapsmith.units import KiB, MiB, format_bytes

_KIND_OF: Final[Mapping[str, type]] = {
    "sizes": SizesPolicy,
    "cache": CachePolicy,
    "remote": RemotePolicy,
    "pages": PagePipe,
    "lock": LockPolicy,
    "hardening": tuple,
    "threads": tuple,
}
SLOTS: Final = tuple(_KIND_OF)
_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,40}")
_FIRST_SEGMENT_BYTES: Final = MiB
_PAGE_MAP_BYTES_PER_PAGE: Final = 9
_SPAN_BYTES: Final = 64


class Problem(msgspec.Struct, frozen=True):
    """One thing in a spec that cannot work: which field, why, and what to do about it."""

    field: str
    why: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.field} {self.why}: {self.remedy}"


class HeapSpec(msgspec.Struct, frozen=True):
    """A heap, described by one policy per slot. What is left out has the value of the preset ``default``.

    Args:
        name: What the heap is called: lower-case letters, digits, ``-`` and ``_``.
        sizes: Which block sizes there are.
        cache: How many blocks a thread may hold.
        remote: What happens to blocks freed by other threads.
        pages: Where pages come from and when they go back.
        lock: What guards the shared parts.
        hardening: What the heap looks for; nothing if left out.
        threads: Heaps of their own for threads of particular names.

    Raises:
        SpecError: The heap cannot work; the message names every problem at once.

    Example:
        >>> HeapSpec(name="tiny", cache=BoundedCache(limit_bytes=8 * KiB)).cache.limit_bytes
        8192
        >>> HeapSpec(name="Bad Name", sizes=Geometric(steps_per_doubling=3))
        Traceback (most recent call last):
        heapsmith.errors.SpecError: this heap cannot work: name is 'Bad Name': ...; sizes.steps_per_doubling is 3: ...
    """

    name: str = "default"
    sizes: SizesPolicy = Geometric()
    cache: CachePolicy = BoundedCache()
    remote: RemotePolicy = RemoteBatch()
    pages: PagePipe = OsPages() | HugePages() | PurgeAfter()
    lock: LockPolicy = FutexLock()
    hardening: tuple[HardeningPolicy, ...] = ()
    threads: tuple[ForThread, ...] = ()

    def __post_init__(self) -> None:
        found = problems_of({field: getattr(self, field) for field in ("name", *SLOTS)})
        if found:
            raise SpecError("this heap cannot work", "; ".join(map(str, found)))

    def policies(self) -> list[tuple[str, Policy]]:
        """Return (field, policy) for every policy in force, in the order of the slots."""
        return _policies({slot: getattr(self, slot) for slot in SLOTS})

    def explain(self) -> str:
        """Print the effective heap: each slot with its parameters, defaults marked, and what each choice costs.

        Example:
            >>> print(HeapSpec(name="plain").explain().splitlines()[0])
            heap "plain"
        """
        return "\n".join(_explanation(self))


def problems_of(values: Mapping[str, Any]) -> list[Problem]:
    """Find everything in a heap that cannot work, before it is made.

    Args:
        values: ``name`` and the policies by slot, as `HeapSpec` takes them.

    Returns:
        Problems in the order of the slots; empty for a heap that can be forged.

    Example:
        >>> [problem.field for problem in problems_of({"name": "", "cache": BoundedCache(limit_bytes=0)})]
        ['name', 'cache.limit_bytes']
    """
    return list(_problems(values))


def _policies(values: Mapping[str, Any]) -> list[tuple[str, Policy]]:
    found = list[tuple[str, Policy]]()
    for slot in SLOTS:
        value = values.get(slot)
        if isinstance(value, PagePipe):
            found += [(f"pages[{number}]", stage) for number, stage in enumerate(value.stages)]
        elif isinstance(value, tuple):
            many = cast("tuple[Policy, ...]", value)
            found += [(f"{slot}[{number}]", policy) for number, policy in enumerate(many)]
        elif isinstance(value, Policy):
            found.append((slot, value))
    return found


def _problems(values: Mapping[str, Any]) -> Iterator[Problem]:
    name = values["name"]
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        yield Problem("name", f"is {name!r}", "use lower-case letters, digits, - and _, a letter first")
    for slot, kind in _KIND_OF.items():
        if slot in values and not isinstance(values[slot], kind):
            yield Problem(slot, f"is {type(values[slot]).__name__}", f"put a policy of slot `{slot}` there")
    for field, policy in _policies(values):
        for parameter, why, remedy in policy.complaints():
            yield Problem(f"{field}.{parameter}", why, remedy)
    if isinstance(pipe := values.get("pages"), PagePipe):
        yield from _pipe_problems(pipe)
    if isinstance(looks := values.get("hardening"), tuple):
        yield from _hardening_problems(cast("tuple[HardeningPolicy, ...]", looks), values.get("sizes"))
    if isinstance(own := values.get("threads"), tuple):
        yield from _thread_problems(
            cast("tuple[ForThread, ...]", own), values.get("sizes"), values.get("cache")
        )
    cache = values.get("cache")
    if isinstance(cache, NoCache) and isinstance(values.get("remote"), RemoteStack):
        yield Problem(
            "remote", "is RemoteStack, but no thread owns spans without a cache", "use RemoteBatch(batches=0)"
        )
    if isinstance(cache, NoCache) and isinstance(values.get("lock"), NoLock):
        yield Problem(
            "lock", "is NoLock with NoCache: nothing would notice a second thread", "use BoundedCache"
        )


def _pipe_problems(pipe: PagePipe) -> Iterator[Problem]:
    stages = pipe.stages
    if not stages or not isinstance(stages[0], OsPages):
        yield Problem("pages", "does not begin with a source", "begin with OsPages()")
    for number, stage in enumerate(stages[1:], 1):
        if isinstance(stage, OsPages):
            yield Problem(f"pages[{number}]", "is a second source", "leave it out")
        if any(type(stage) is type(other) for other in stages[1:number]):
            yield Problem(f"pages[{number}]", f"is a second {type(stage).__name__}", "leave one of them out")
    purging = [stage for stage in stages if isinstance(stage, PurgeAfter | PurgeAtOnce | PurgeOnDemand)]
    if len(purging) > 1:
        names = " and ".join(type(stage).__name__ for stage in purging)
        yield Problem("pages", f"has {names}", "decide for one way of giving pages back")
    for number, stage in enumerate(stages):
        if isinstance(stage, Limit) and 0 < stage.limit_bytes < _FIRST_SEGMENT_BYTES:
            yield Problem(
                f"pages[{number}].limit_bytes",
                f"is {format_bytes(stage.limit_bytes)}, below what a program needs to start",
                "use 1MiB or more",
            )


def _hardening_problems(policies: tuple[HardeningPolicy, ...], sizes: object) -> Iterator[Problem]:
    for number, policy in enumerate(policies):
        if any(type(policy) is type(other) for other in policies[:number]):
            yield Problem(
                f"hardening[{number}]", f"is a second {type(policy).__name__}", "leave one of them out"
            )
    needing = [
        policy
        for policy in policies
        if not isinstance(policy, CheckedBlocks | EncodedLinks | RandomFreeLists)
    ]
    checked = any(isinstance(policy, CheckedBlocks) for policy in policies)
    if needing and not checked:
        yield Problem(
            "hardening", f"has {type(needing[0]).__name__} without CheckedBlocks", "add CheckedBlocks"
        )
    if checked and isinstance(sizes, SizesPolicy) and not sizes.complaints():
        classes = sizes.class_bytes()
        if classes[-1] > 32 * KiB:
            remedy = "use 32KiB: larger blocks are guarded as spans of their own"
            yield Problem("sizes", f"goes to {format_bytes(classes[-1])} under CheckedBlocks", remedy)
        if any(size % 16 for size in classes):
            yield Problem(
                "sizes", "has a class that is no multiple of 16 under CheckedBlocks", "use multiples of 16"
            )


def _thread_problems(threads: tuple[ForThread, ...], sizes: object, cache: object) -> Iterator[Problem]:
    if threads and isinstance(cache, NoCache):
        yield Problem("threads", "have heaps of their own, but no cache to know them by", "use BoundedCache")
    names = [thread.name for thread in threads]
    for number, thread in enumerate(threads):
        if thread.name in names[:number]:
            yield Problem(f"threads[{number}].name", f"is {thread.name!r} again", "name each thread once")
    if not isinstance(sizes, SizesPolicy) or sizes.complaints():
        return
    everybody = sizes.class_bytes()
    for number, thread in enumerate(threads):
        if thread.class_bytes_list and max(thread.class_bytes_list) > everybody[-1]:
            largest = format_bytes(everybody[-1])
            remedy = f"keep it within everybody's {largest}"
            yield Problem(
                f"threads[{number}].class_bytes_list", f"has {max(thread.class_bytes_list)}", remedy
            )
    if len(everybody) + sum(len(thread.class_bytes_list) for thread in threads) > 250:
        yield Problem("threads", "bring the classes of all heaps to more than 250", "use fewer classes")


def _explanation(spec: HeapSpec) -> Iterator[str]:
    default = HeapSpec()
    yield f'heap "{spec.name}"'
    for field, policy in spec.policies():
        slot = field.partition("[")[0]
        parameters = list[str]()
        for name in policy.__struct_fields__:
            value = getattr(policy, name)
            text = format_bytes(value) if name.endswith("_bytes") else str(value)
            parameters.append(f"{name} = {text}{_default_mark(policy, name, value)}")
        chosen = "" if _in_default(default, slot, policy) else " (chosen)"
        yield f"  {field}: {type(policy).__name__}{chosen}"
        yield from (f"      {parameter}" for parameter in parameters)
        if cost := policy.cost():
            yield f"      -> {cost}"
    classes = spec.sizes.class_bytes()
    yield "costs"
    yield f"  internal fragmentation: at most {100 * worst_unused_ratio(classes):.1f} % of a block from 64 B on"
    yield (
        f"  metadata: {_PAGE_MAP_BYTES_PER_PAGE} B per page "
        f"({100 * _PAGE_MAP_BYTES_PER_PAGE / PAGE_BYTES:.2f} %) and {_SPAN_BYTES} B per span, outside of the spans"
    )
    if isinstance(spec.cache, NoCache):
        yield "  cache: none"
    else:
        held = format_bytes(getattr(spec.cache, "limit_bytes"))  # noqa: B009 (every caching policy has one)
        yield f"  cache: at most {held} per thread, and {_cache_table(classes)} of lists"
    if any(isinstance(stage, Prefault) for stage in spec.pages.stages):
        yield "  every page taken is resident at once"


def _cache_table(classes: list[int]) -> str:
    return format_bytes((len(classes) + 1) * 33 + 64)


def _default_mark(policy: Policy, name: str, value: object) -> str:
    for field in msgspec.structs.fields(type(policy)):
        if field.name == name and field.default is not msgspec.NODEFAULT:
            return " (default)" if field.default == value else f" (default {field.default})"
    return ""


def _in_default(default: HeapSpec, slot: str, policy: Policy) -> bool:
    if slot == "pages":
        return any(type(policy) is type(stage) for stage in default.pages.stages)
    return type(getattr(default, slot)) is type(policy)


def as_pipe(stages: list[PagesPolicy]) -> PagePipe:
    """Stack stages as they come in a document."""
    return PagePipe(tuple(stages))
