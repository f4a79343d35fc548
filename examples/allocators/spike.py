"""A spike of requests, then quiet ones: `python spike.py PORT`. Prints requests per second of the spike."""

import http.client
import sys
import threading
import time

CLIENTS = 8
REQUESTS_EACH = 30


def ask(port, numbers, pause_s=0.0):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for number in numbers:
        connection.request("GET", f"/{number}")
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            sys.exit(f"request {number} failed with {answer.status}")
        time.sleep(pause_s)
    connection.close()


port = int(sys.argv[1])
ask(port, range(10))
began = time.perf_counter()
clients = [
    threading.Thread(target=ask, args=(port, range(client * 1000, client * 1000 + REQUESTS_EACH)))
    for client in range(1, CLIENTS + 1)
]
for client in clients:
    client.start()
for client in clients:
    client.join()
print(f"Requests/sec: {CLIENTS * REQUESTS_EACH / (time.perf_counter() - began):.1f}")
time.sleep(0.6)
ask(port, range(10), pause_s=0.01)
