"""What every test may ask for."""

from hypothesis import settings

from watched import compiled, heapsmith, heapsmith_run, watch

__all__ = ["compiled", "heapsmith", "heapsmith_run", "watch"]

collect_ignore_glob = ["*/programs/*"]
"""Programs under watch are run, never imported: some of them end their process."""

# How long one example takes says more of the machine than of the code.
settings.register_profile("heapsmith", deadline=None)
settings.load_profile("heapsmith")
