"""JSON rows made, written, read back and indexed: dictionaries, strings, lists."""

import json
import random
import sys


def make_rows(rng: random.Random, count: int) -> list[dict[str, object]]:
    return [
        {
            "id": number,
            "name": f"user{rng.randrange(10**6)}",
            "tags": [f"t{rng.randrange(100)}" for _ in range(5)],
            "place": {"north": rng.random(), "east": rng.random()},
            "text": "x" * rng.randrange(10, 600),
        }
        for number in range(count)
    ]


def main(rounds: int) -> None:
    rng = random.Random(1)
    kept: list[dict[str, dict[str, object]]] = []
    for _ in range(rounds):
        rows = json.loads(json.dumps(make_rows(rng, 1500)))
        index: dict[str, dict[str, object]] = {}
        for row in rows:
            for tag in row["tags"]:
                index.setdefault(tag, {})[row["name"]] = dict(row["place"], id=row["id"])
        kept = [*kept[-8:], index]


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 40)
