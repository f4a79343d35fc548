"""redis under a load of pushes and reads: the server runs on the library that is named, the load does not.

python redis.py LAUNCHER LIBRARY: prints the row of the server, whose time is that of the load.
"""

import json
import socket
import subprocess
import sys
import time

LOAD = ["-r", "1000000", "-n", "60000", "-q", "-P", "16", "lpush", "a", "1", "2", "3", "4", "5"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int) -> None:
    until = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.01)


def main(launcher: str, library: str) -> int:
    port = str(free_port())
    words = ["redis-server", "--port", port, "--save", "", "--bind", "127.0.0.1", "--loglevel", "warning"]
    server = subprocess.Popen([launcher, "--run", library, *words], stdout=subprocess.PIPE, text=True)
    try:
        wait_for(int(port))
        begin = time.monotonic_ns()
        subprocess.run(["redis-benchmark", "-p", port, *LOAD], stdout=subprocess.DEVNULL, check=True)
        time_ns = time.monotonic_ns() - begin
    finally:
        subprocess.run(["redis-cli", "-p", port, "shutdown", "nosave"], capture_output=True, check=False)
        output, _ = server.communicate(timeout=20)
    print(json.dumps(json.loads(output) | {"time_ns": time_ns}))  # noqa: T201
    return server.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
