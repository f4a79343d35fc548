"""A small service with a life worth watching: steady requests, a cache that fills, a spike, a slow leak.

    heapsmith run --live -- python3 examples/service.py --seconds 30

Four worker threads answer requests (JSON in, JSON out) and share a cache of bounded size, so blocks are freed by other
threads than allocated them. In the middle comes a spike of large answers that is released again. Each request also leaves
a little behind in a log that nobody empties: the slow growth to find.
"""

from __future__ import annotations

import argparse
import collections
import json
import queue
import random
import threading
import time

CACHE_ENTRIES = 4000
WORKERS = 4


class Service:
    """Requests come in by a queue; answers stay in a cache for a while."""

    def __init__(self) -> None:
        self.requests: queue.Queue[int | None] = queue.Queue(200)
        self.cache: collections.OrderedDict[int, dict[str, object]] = collections.OrderedDict()
        self.lock = threading.Lock()
        self.log: list[str] = []
        self.answered = 0

    def work(self) -> None:
        """Answer requests until told to stop."""
        rng = random.Random(threading.get_ident())
        while (number := self.requests.get()) is not None:
            rows = [
                {"id": rng.randrange(1 << 30), "name": f"user{rng.randrange(10**6)}"}
                for _ in range(rng.choice((3, 30, 90)))
            ]
            text = json.dumps({"request": number, "rows": rows, "note": "z" * rng.choice((10, 100, 3000))})
            answer = json.loads(text)
            with self.lock:
                self.cache[number % (2 * CACHE_ENTRIES)] = answer
                while len(self.cache) > CACHE_ENTRIES:
                    self.cache.popitem(last=False)
                self.log.append(f"request {number}: {len(text)} bytes")
                self.answered += 1


def main() -> None:
    """Run the service for a while, with a spike in the middle."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=30.0)
    seconds = parser.parse_args().seconds
    service = Service()
    workers = [threading.Thread(target=service.work, name=f"worker-{number}") for number in range(WORKERS)]
    for worker in workers:
        worker.start()
    start = time.monotonic()
    spike: list[bytearray] = []
    number = 0
    while (elapsed := time.monotonic() - start) < seconds:
        service.requests.put(number)
        number += 1
        if 0.45 < elapsed / seconds < 0.6 and number % 40 == 0 and len(spike) < 60:
            spike.append(bytearray(1 << 20))
        elif elapsed / seconds >= 0.6:
            spike.clear()
        time.sleep(0.0005)
    for _ in workers:
        service.requests.put(None)
    for worker in workers:
        worker.join()
    print(f"{service.answered} requests answered, {len(service.log)} lines in the log that nobody reads")


if __name__ == "__main__":
    main()
