"""The work of the example web service: reports that are cached while there is work, sessions that stay.

A spike fills the cache; a moment of quiet empties it again. What stays resident then is the allocator's
doing: each request left one small, long-lived session behind, scattered over the pages of the spike.
"""

import json
import random
import threading
import time

QUIET_SECONDS = 0.4


class Reports:
    """Thread-safe reports with a cache that forgets."""

    def __init__(self):
        self._lock = threading.Lock()
        self._cache = {}
        self._sessions = []
        self._asked = 0.0
        threading.Thread(target=self._forget, daemon=True).start()

    def make(self, number):
        """Build a report of 400 rows, keep it for a second, and return its text."""
        choose = random.Random(number)
        rows = [
            {
                "id": choose.randrange(1 << 30),
                "name": f"user{choose.randrange(10**6)}",
                "tags": [f"t{choose.randrange(999)}" for _ in range(5)],
                "text": "x" * choose.choice((20, 400, 6000)),
            }
            for _ in range(400)
        ]
        text = json.dumps(rows)
        report = json.loads(text)
        with self._lock:
            self._asked = time.monotonic()
            self._cache[number] = report
            self._sessions.append({"user": report[0]["id"], "seen": [number]})
        return text[:200]

    def _forget(self):
        while True:
            time.sleep(0.1)
            with self._lock:
                if time.monotonic() - self._asked > QUIET_SECONDS:
                    self._cache.clear()
