"""``python -m heapsmith`` and the installed command are the same."""

import sys


def run() -> None:
    """Run the command line and leave with its exit code."""
    from heapsmith.cli import main

    sys.exit(main())


if __name__ == "__main__":
    run()
