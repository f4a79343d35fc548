"""What every test may ask for."""

from watched import compiled, heapsmith, heapsmith_run, watch

__all__ = ["compiled", "heapsmith", "heapsmith_run", "watch"]

collect_ignore_glob = ["*/programs/*"]
"""Programs under watch are run, never imported: some of them end their process."""
