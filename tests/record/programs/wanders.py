"""Wanders through calls of every kind, and says where it was at each of its allocations.

Its ways lead back to the same functions from another line, by other generators, through C, after exceptions, out of code
that is made and dropped: whatever could be taken for a stack that was seen before.
"""

import asyncio
import functools
import inspect
import json
import random
import sys
import threading
from collections.abc import Iterator

SIZE = 40000 - 32  # of an object of bytes: 33 more than it holds
rng = random.Random(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
places: list[list[tuple[str, int]]] = []
kept: list[Iterator[None]] = []


def leaf() -> None:
    place: list[tuple[str, int]] = []
    frame = inspect.currentframe()
    while frame := frame and frame.f_back:
        place.append((frame.f_code.co_qualname, frame.f_lineno))
    places.append(place)
    bytes(SIZE + len(places) - 1)


def once(depth: int) -> None:
    wander(depth)


def twice(depth: int) -> None:
    once(depth)
    once(depth)
    for _ in range(2):
        once(depth)


def generate(depth: int) -> Iterator[None]:
    leaf()
    yield
    wander(depth)
    yield
    yield from generate(depth - 1) if depth > 0 else ()
    leaf()


def resume(depth: int) -> None:
    if len(kept) < 3:
        kept.append(generate(depth))
    for _ in range(2):
        which = rng.randrange(len(kept))
        generator = kept.pop(which)
        if next(generator, leaf) is not leaf:
            kept.append(generator)
    leaf()


def fail(depth: int) -> None:
    if depth <= 0:
        leaf()
        raise KeyError(depth)
    fail(depth - 1)


def recover(depth: int) -> None:
    try:
        fail(min(depth, 3))
    except KeyError:
        leaf()
    try:
        fail(0)
    except KeyError:
        wander(depth)


class Through:
    def __init__(self, depth: int) -> None:
        self.depth = depth
        wander(depth)

    def __getitem__(self, depth: int) -> None:
        wander(depth)

    @property
    def below(self) -> None:
        return wander(self.depth)

    def __lt__(self, other: "Through") -> bool:
        leaf()
        return True


def through_c(depth: int) -> None:
    through = Through(depth - 1)
    through[depth - 1]
    assert through.below is None
    sorted([through, through])
    list(map(once, [depth - 2] * 2))
    functools.partial(once, depth - 2)()
    once(depth - 2)


def out_of_made_code(depth: int) -> None:
    for _ in range(4):
        before = rng.randrange(4)
        text = "\n" * before + "leaf()" + "\n" * (4 - before)
        exec(compile(text, "made", "exec"), globals())
    exec(compile(f"\nwander({depth - 1})\nleaf()", "made", "exec"), globals())


async def rest(depth: int) -> None:
    await asyncio.sleep(0)
    leaf()
    if depth > 0:
        await rest(depth - 1)
    wander(0)
    leaf()


async def gather() -> None:
    await asyncio.gather(*(rest(depth) for depth in range(4)))


def wander(depth: int) -> None:
    leaf()
    if depth <= 0 or len(places) > 2000:
        return
    rng.choice([once, twice, resume, recover, through_c, out_of_made_code])(depth - 1)
    leaf()


if __name__ == "__main__":
    while len(places) < 2000:
        wander(rng.randrange(2, 9))
        once(rng.randrange(40))
        asyncio.run(gather())
        thread = threading.Thread(target=wander, args=(3,))
        thread.start()
        thread.join()
    kept.clear()
    json.dump(places, sys.stdout)
