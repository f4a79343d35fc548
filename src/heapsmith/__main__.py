"""``python -m heapsmith`` and the installed command are the same."""

import sys


def run() -> None:
    """Run the command line and leave with its exit code."""
    try:
        from heapsmith.cli import main

        code = main()
    except KeyboardInterrupt:  # while the command line itself is still being loaded
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    run()
