"""Where rounds run: here, or on the workers of any `concurrent.futures.Executor`."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Generator
from concurrent.futures import Executor
from typing import Any, Final, NamedTuple

from heapsmith.errors import HeapsmithError, RunError

_DASK: Final = "dask://"


class Workers(NamedTuple):
    """Where rounds run.

    Args:
        executor: The executor; None for this process, one trial after the other.
        width: How many rounds can run at a time.
    """

    executor: Executor | None
    width: int


HERE: Final = Workers(None, 1)


@contextlib.contextmanager
def open_executor(address: str | None) -> Generator[Workers]:
    """Open the executor that an address names, and close it afterwards.

    Args:
        address: ``dask://HOST:PORT`` for a Dask scheduler; None for this process.

    Yields:
        The workers.

    Raises:
        HeapsmithError: The address is none, Dask is not installed, or its scheduler does not answer.

    Example:
        >>> with open_executor(None) as workers:
        ...     print(workers.executor, workers.width)
        None 1
    """
    if address is None:
        yield HERE
        return
    if not address.startswith(_DASK) or address == _DASK:
        raise HeapsmithError(
            f"{address!r} is no executor", hint="write dask://HOST:PORT, the address of a scheduler"
        )
    try:
        distributed: Any = importlib.import_module("distributed")
    except ImportError:
        raise HeapsmithError(
            "Dask is not installed", "--executor needs it", "pip install 'heapsmith[dask]'"
        ) from None
    scheduler = f"tcp://{address.removeprefix(_DASK)}"
    try:
        client: Any = distributed.Client(scheduler, timeout=10)
    except (OSError, TimeoutError, ValueError) as error:
        raise RunError(f"no Dask scheduler answers at {scheduler}", str(error).partition("\n")[0]) from None
    try:
        # A trial repeated elsewhere after a lost worker would be a second trial: better to hear of it.
        count = len(client.scheduler_info(n_workers=-1)["workers"])
        yield Workers(client.get_executor(pure=False, retries=0), max(1, count))
    finally:
        client.close()
