"""A pre-fork server as gunicorn is one, with the standard library: a socket, four workers that accept from it."""

import http.server
import os
import signal
import socket
import sys
import time
from pathlib import Path


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        answer = b" ".join(str(number).encode() for number in range(2000))
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


class Worker(http.server.HTTPServer):
    def __init__(self, listener):
        super().__init__(listener.getsockname(), Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener


def start_worker(listener):
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        Worker(listener).serve_forever()
    return pid


listener = socket.create_server(("127.0.0.1", 0), backlog=64)
workers = {start_worker(listener) for _ in range(4)}
Path(sys.argv[1]).write_text(str(listener.getsockname()[1]))


def stop(*_):
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    sys.exit(0)


signal.signal(signal.SIGTERM, stop)
while True:
    time.sleep(0.2)
    pid, _ = os.waitpid(-1, os.WNOHANG)
    if pid in workers:  # as gunicorn does: a worker that is gone is replaced
        workers.discard(pid)
        workers.add(start_worker(listener))
