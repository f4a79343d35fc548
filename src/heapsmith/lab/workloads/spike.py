"""A threaded service with a spike of requests: what stays resident two seconds after it, beside what is live?"""

import gc
import json
import random
import threading
import time

from measured import run_measured

QUIET_S = 2.0
kept: list[object] = []
"""Sessions that begin during the spike and outlive it."""


def answer(rng: random.Random) -> list[object]:
    rows = [
        {
            "number": rng.randrange(1 << 30),
            "name": f"user{rng.randrange(10**6)}",
            "tags": [f"t{rng.randrange(999)}" for _ in range(5)],
            "text": "x" * rng.choice((20, 200, 2000)),
        }
        for _ in range(400)
    ]
    answered = json.loads(json.dumps(rows))
    kept.append(answered[0])
    return answered


def serve(seed: int, requests: int, at_once: int) -> None:
    rng = random.Random(seed)
    held: list[object] = []
    for _ in range(requests):
        held = [*held[1 - at_once :], answer(rng)]


def phase(requests: int, at_once: int) -> None:
    threads = [threading.Thread(target=serve, args=(seed, requests, at_once)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def become_quiet() -> None:
    """A request now and then, as in the night."""
    gc.collect()
    rng = random.Random(99)
    until = time.monotonic() + QUIET_S
    while time.monotonic() < until:
        answer(rng)
        time.sleep(0.1)


def work() -> None:
    phase(10, 2)
    phase(25, 25)


if __name__ == "__main__":
    run_measured(work, become_quiet)
