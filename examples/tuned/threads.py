"""A threaded service with a spike: requests are decoded, answered and partly kept. Arguments: seed, requests per thread."""

import json
import random
import sys
import threading

SEED, REQUESTS = int(sys.argv[1]), int(sys.argv[2])
kept = []
lock = threading.Lock()


def answer(chance):
    rows = [
        {
            "id": chance.randrange(1 << 30),
            "name": f"user{chance.randrange(10**6)}",
            "tags": [f"t{chance.randrange(999)}" for _ in range(5)],
            "text": "x" * chance.choice((20, 200, 2000)),
        }
        for _ in range(300)
    ]
    decoded = json.loads(json.dumps(rows))
    with lock:
        kept.append(decoded[0])
    return decoded


def serve(seed, requests, held):
    chance = random.Random(seed)
    window = []
    for _ in range(requests):
        window.append(answer(chance))
        if len(window) > held:
            window.pop(0)


def phase(requests, held):
    threads = [threading.Thread(target=serve, args=(SEED + i, requests, held)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


phase(REQUESTS, 2)
phase(REQUESTS, 20)
phase(REQUESTS // 3, 2)
print(len(kept))
