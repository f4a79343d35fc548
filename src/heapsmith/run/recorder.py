"""A recorder as a process of its own, for a program that records a part of itself: ``python -m heapsmith.run.recorder``.

It takes one JSON document as its argument, says ``ready`` on standard output, or why it cannot record, and records until
its standard input ends; then it says what came of it, as JSON.
"""

from __future__ import annotations

import json
import select
import signal
import sys
from pathlib import Path

import msgspec

from heapsmith.errors import HeapsmithError
from heapsmith.run.record import Recorder, RecordResult, RecordWishes


class Request(msgspec.Struct):
    """What is to be recorded, and where to."""

    directory: str
    output: str
    command: list[str]
    wishes: RecordWishes


def main() -> None:
    """Record as the argument says."""
    # Ctrl-C is for the program; the recorder ends with it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    request = msgspec.convert(json.loads(sys.argv[1]), Request)
    try:
        recorder = Recorder(Path(request.directory), Path(request.output), request.wishes, request.command)
    except HeapsmithError as error:
        sys.stdout.write(f"{error}\n")
        return
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while not select.select([sys.stdin], [], [], 0)[0]:
        recorder.look()
    recorder.finish(tell_running=False)
    result: RecordResult = recorder.result(None)
    sys.stdout.buffer.write(msgspec.json.encode(result) + b"\n")


if __name__ == "__main__":
    main()
