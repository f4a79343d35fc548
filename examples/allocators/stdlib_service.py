"""A threaded web service of the standard library: `python stdlib_service.py PORT`."""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from reports import Reports

REPORTS = Reports()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = REPORTS.make(int(self.path.rpartition("/")[2] or 0)).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
