"""A web service that remembers every answer: python service.py [--requests N] [--bound N]."""

import argparse
import json
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer

answers = {}


def compute(query):
    return {"query": query, "rows": [f"{query}-{place}" for place in range(40)]}


def remember(query, bound):
    if query not in answers:
        answers[query] = json.dumps(compute(query)) * 8
    if bound and len(answers) > bound:
        del answers[next(iter(answers))]
    return answers[query]


class Handler(BaseHTTPRequestHandler):
    bound = 0

    def do_GET(self):
        body = remember(self.path, self.bound).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        pass


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--requests", type=int, default=1500, help="asked by the program itself; 0: serve for ever"
    )
    parser.add_argument("--bound", type=int, default=0, help="answers to keep at most")
    options = parser.parse_args()
    Handler.bound = options.bound
    server = HTTPServer(("127.0.0.1", 0), Handler)
    address = f"http://127.0.0.1:{server.server_port}"
    print(f"serving at {address}", flush=True)
    if not options.requests:
        server.serve_forever()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for number in range(options.requests):
        urllib.request.urlopen(f"{address}/item/{number}").read()
    server.shutdown()


if __name__ == "__main__":
    main()
