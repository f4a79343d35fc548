"""A small web service and its clients: requests over loopback, JSON in and out, a thread for each connection."""

import http.client
import http.server
import json
import sys
import threading


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else it waits for acknowledgements more than it works

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = json.dumps({"sum": sum(body["numbers"]), "echo": body["numbers"][::-1]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        pass


def ask(port: int, requests: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    body = json.dumps({"numbers": list(range(200))})
    for _ in range(requests):
        connection.request("POST", "/", body)
        connection.getresponse().read()
    connection.close()


def main(requests: int) -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    clients = [threading.Thread(target=ask, args=(server.server_port, requests)) for _ in range(4)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    server.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 500)
