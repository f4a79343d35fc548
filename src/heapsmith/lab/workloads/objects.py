"""Many small objects, made deep in a recursion and dropped by the hundred."""

import sys


class Node:
    __slots__ = ("data", "key", "left", "next")

    def __init__(self, key: object, data: object) -> None:
        self.key = key
        self.data = data


def grow(depth: int, key: int, kept: list[Node]) -> Node:
    if depth == 0:
        return Node(key, [(key, str(key))])
    node = Node((key, depth), {"a": depth * 1000003, "b": [key + depth, depth], "c": f"s{depth}"})
    child = grow(depth - 1, key + 1, kept)
    node.next, node.left = child.key, (child.key, depth)
    kept.append(node)
    return node


def main(rounds: int) -> None:
    sys.setrecursionlimit(10_000)
    trees: list[list[Node]] = []
    for number in range(rounds):
        kept: list[Node] = []
        grow(300, number * 300, kept)
        trees = [*trees[-100:], kept]


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1500)
