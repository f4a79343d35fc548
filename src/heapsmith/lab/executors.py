"""Where rounds run: here, or on the workers of any `concurrent.futures.Executor`."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Generator
from concurrent.futures import Executor
from typing import Any, Final

from heapsmith.errors import HeapsmithError, RunError

_DASK: Final = "dask://"


@contextlib.contextmanager
def open_executor(address: str | None) -> Generator[Executor | None]:
    """Open the executor that an address names, and close it afterwards.

    Args:
        address: ``dask://HOST:PORT`` for a Dask scheduler; None for this process.

    Yields:
        The executor, or None for this process.

    Raises:
        HeapsmithError: The address is none, Dask is not installed, or its scheduler does not answer.

    Example:
        >>> with open_executor(None) as executor:
        ...     print(executor)
        None
    """
    if address is None:
        yield None
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
        yield client.get_executor(pure=False, retries=0)
    finally:
        client.close()
