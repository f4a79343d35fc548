"""Allocates from known lines: a function, a generator, a comprehension, a thread, a coroutine, C calling back."""

import asyncio
import threading

SIZE = 40000 - 32  # of an object of bytes: 33 more than it holds


def leaf(extra: int) -> bytes:
    return bytes(SIZE + extra)


def generator():
    yield leaf(1)


async def coroutine() -> None:
    await asyncio.sleep(0)
    leaf(2)


class Compared:
    def __init__(self, value: int) -> None:
        self.value = value

    def __lt__(self, other: "Compared") -> bool:
        leaf(3)
        return self.value < other.value


def deep(depth: int) -> bytes:
    return deep(depth - 1) if depth else leaf(4)


class Ünïcode:
    def größe(self) -> bytes:
        return leaf(6)


if __name__ == "__main__":
    leaf(0)
    for _ in generator():
        pass
    asyncio.run(coroutine())
    sorted([Compared(2), Compared(1)])
    deep(30)
    thread = threading.Thread(target=leaf, args=(5,))
    thread.start()
    thread.join()
    Ünïcode().größe()
