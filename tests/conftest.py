"""What every test may ask for."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from watched import compiled, heapsmith, heapsmith_run, watch

__all__ = ["compiled", "heapsmith", "heapsmith_run", "watch"]

collect_ignore_glob = ["*/programs/*"]
"""Programs under watch are run, never imported: some of them end their process."""

# How long one example takes says more of the machine than of the code.
settings.register_profile("heapsmith", deadline=None)
settings.load_profile("heapsmith")


@pytest.fixture
def two_dask_workers(tmp_path: Path) -> Iterator[str]:
    """A cluster of two workers: what `--executor` takes."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        dashboard_address=None,
        local_directory=str(tmp_path),
    ) as cluster:
        yield f"dask://{cluster.scheduler_address.removeprefix('tcp://')}"
