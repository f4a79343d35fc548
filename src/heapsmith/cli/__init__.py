"""The command line: one file per verb, found by name, imported only when it is asked for.

Results go to standard output, diagnostics and progress to standard error. Every error that a person may cause leaves
here as one line and an exit code (2 = wrong usage or bad input), never as a traceback.
"""

from __future__ import annotations

import difflib
import errno
import os
import sys
from collections.abc import Sequence
from typing import Final

from cyclopts import App, CoercionError, CycloptsError, MissingArgumentError

import heapsmith
from heapsmith.cli.streams import prepare_streams
from heapsmith.errors import EXIT_USAGE, HeapsmithError

# A verb is a function (or, where it has verbs of its own, an `App`) of its own name in the module of that name:
# `heapsmith.cli.run:run`.
VERBS: Final = {
    "run": "Run a program and watch its heap; limit it; put it on another heap.",
    "record": "Record every allocation event of a program.",
    "ps": "List the watched processes.",
    "info": "Show the heap of one watched process; change its limit.",
    "live": "Serve the live page of all watched processes.",
    "top": "The same in the terminal.",
    "allocators": "What allocators are here, with their knobs.",
    "compare": "Run a program under several allocators, and tell differences from noise.",
    "advise": "Find the allocator and the knobs that suit a program.",
    "replay": "Play a recorded program's allocations over several allocators.",
    "report": "Tell what happened in a recorded run, and where.",
    "leaks": "What was still live at exit, by place.",
    "diff": "What grew and what shrank between two recordings.",
    "tune": "Design a heap for recorded programs, and verify that it earns its place.",
    "forge": "Make a heap from its description.",
    "check": "Hold an allocator against the contract of malloc, or the statistics call against its promises.",
    "bench": "Measure heapsmith itself.",
    "metrics": "Serve the heaps of all watched processes to Prometheus.",
    "probe": "Find out how much heap can be had here.",
    "track": "Log a program's heap as Heap Tracker does.",
    "osmem": "The teaching allocator: build, trace, check, draw, study.",
    "doctor": "What works on this machine, and what to do about what does not.",
}
"""Every verb, with what the list of verbs says of it."""


_NUMBERS: Final = (int, int | None, float, float | None)
_OUTPUT_FAILS: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)


def _make_app(verb: str | None) -> App:
    """Make the command line; a verb that was asked for speaks for itself, the list of all only names them."""
    app = App(
        name="heapsmith",
        help="Your program's heap, made to measure: see, limit, tune and replace the heap of any Linux program.",
        version=heapsmith.__version__,
    )
    for order, (name, summary) in enumerate(VERBS.items()):
        more = {} if name == verb else {"help": summary}
        app.command(f"heapsmith.cli.{name}:{name}", name=name, sort_key=order, **more)
    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and answer its exit code.

    Args:
        arguments: The words after ``heapsmith``; those of this process when left out.

    Example:
        >>> main(["run", "--no-such-option"])
        2
    """
    prepare_streams()
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    if tokens and not tokens[0].startswith("-") and tokens[0] not in VERBS:
        near = difflib.get_close_matches(tokens[0], VERBS, n=1)
        hint = f"did you mean `{near[0]}`?" if near else "see `heapsmith --help`"
        return _refuse(f"there is no verb {tokens[0]!r} ({hint})", EXIT_USAGE)
    app = _make_app(tokens[0] if tokens else None)
    try:
        result = app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except HeapsmithError as error:
        return _refuse(str(error), error.exit_code)
    except CycloptsError as error:
        verb = " ".join(["", *(error.command_chain or ())])
        return _refuse(f"{_in_our_words(error)} (see `heapsmith{verb} --help`)", EXIT_USAGE)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output has gone: say nothing, and keep the interpreter's last flush quiet.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        if error.filename is not None or error.errno not in _OUTPUT_FAILS:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _refuse(f"the output could not be written: {error.strerror}", EXIT_USAGE)
    return result if isinstance(result, int) else 0


def _in_our_words(error: CycloptsError) -> str:
    argument = error.argument
    if isinstance(error, MissingArgumentError) and argument is not None and argument.token_count()[0] == 1:
        given = error.keyword or next((token.keyword for token in argument.tokens if token.keyword), None)
        if given:
            return f"{given} has no value"
        is_word = argument.index is not None
        return f"{argument.name.lstrip('-').upper() if is_word else argument.name} is missing"
    if isinstance(error, CoercionError) and argument is not None and argument.hint in _NUMBERS:
        number = "a whole number" if argument.hint in _NUMBERS[:2] else "a number"
        return f"{argument.name} takes {number}, not {error.token.value if error.token else 'this'!r}"
    return " ".join(str(error).split())


def _refuse(message: str, exit_code: int) -> int:
    print(f"heapsmith: {message}", file=sys.stderr)  # noqa: T201 (the door through which errors leave)
    return exit_code
