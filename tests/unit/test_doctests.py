"""The examples of the public docstrings, run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import heapsmith

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(heapsmith.__path__, "heapsmith.")
    if ".workloads" not in module.name and not module.name.endswith("__main__")
)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_run(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS).failed == 0
