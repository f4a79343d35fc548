"""The command line: one file per verb, found by name, imported only when it is asked for.

Results go to standard output, diagnostics and progress to standard error. Every error that a person may cause leaves
here as one line and an exit code (2 = wrong usage or bad input), never as a traceback.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Sequence
from typing import Final

from cyclopts import App, CycloptsError

import heapsmith
from heapsmith.errors import EXIT_USAGE, HeapsmithError

# A verb is a function (or, where it has verbs of its own, an `App`) of its own name in the module of that name:
# `heapsmith.cli.run:run`.
VERBS: Final[tuple[str, ...]] = (
    "run",
    "ps",
    "info",
    "live",
    "top",
    "allocators",
    "compare",
    "advise",
    "bench",
    "metrics",
    "probe",
    "track",
    "osmem",
    "doctor",
    "forge",
    "check",
)

app = App(
    name="heapsmith",
    help="Your program's heap, made to measure: see, limit, record, tune and replace the heap of any Linux program.",
    version=heapsmith.__version__,
)
for _verb in VERBS:
    app.command(f"heapsmith.cli.{_verb}:{_verb}", name=_verb)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and answer its exit code.

    Args:
        arguments: The words after ``heapsmith``; those of this process when left out.

    Example:
        >>> main(["run", "--no-such-option"])
        2
    """
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    if tokens and not tokens[0].startswith("-") and tokens[0] not in VERBS:
        near = difflib.get_close_matches(tokens[0], VERBS, n=1)
        hint = f"did you mean `{near[0]}`?" if near else "see `heapsmith --help`"
        return _refuse(f"there is no verb {tokens[0]!r} ({hint})", EXIT_USAGE)
    try:
        result = app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except HeapsmithError as error:
        return _refuse(str(error), error.exit_code)
    except CycloptsError as error:
        verb = f" {tokens[0]}" if tokens and tokens[0] in VERBS else ""
        return _refuse(f"{' '.join(str(error).split())} (see `heapsmith{verb} --help`)", EXIT_USAGE)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output has gone: say nothing, and keep the interpreter's last flush quiet.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return result if isinstance(result, int) else 0


def _refuse(message: str, exit_code: int) -> int:
    print(f"heapsmith: {message}", file=sys.stderr)  # noqa: T201 (the door through which errors leave)
    return exit_code
