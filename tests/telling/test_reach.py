"""How much heap can be had, found by children that may die."""

from __future__ import annotations

import json
import resource
import subprocess
from collections.abc import Callable

import pytest

from heapsmith.lab import reach
from heapsmith.units import MiB

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


def test_all_ways_reach_a_limit_that_is_small_enough(heapsmith: Cli) -> None:
    document = json.loads(heapsmith("probe", "--limit", "16MiB", "--json").stdout)
    assert len(document["reaches"]) == 8
    for found in document["reaches"]:
        assert found["stopped_by"] == "limit of this probe"
        assert 15 * MiB <= found["reached_bytes"] <= 16 * MiB


def test_null_names_the_resource_limit(heapsmith: Cli) -> None:
    def lower() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (256 * MiB, 256 * MiB))

    done = heapsmith(
        "probe", "--limit", "512MiB", "--step", "16MiB", "--json", preexec_fn=lower, timeout_s=120
    )
    found = json.loads(done.stdout)["reaches"]
    assert {one["stopped_by"] for one in found} == {"NULL"}
    assert all(
        "RLIMIT_DATA of 256 MiB" in one["detail"] and one["reached_bytes"] <= 256 * MiB for one in found
    )


def test_being_killed_is_an_answer_and_keeps_what_was_reached(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    def killed(*words: object, **options: object) -> subprocess.CompletedProcess[bytes]:
        return subprocess.CompletedProcess([], -9, (5 * MiB).to_bytes(8, "little"))

    monkeypatch.setattr(reach.subprocess, "run", killed)
    found = next(iter(reach.measure_reach(64 * MiB)))
    assert (found.stopped_by, found.reached_bytes) == ("killed", 5 * MiB)
    assert "SIGKILL" in found.detail


def test_a_probe_that_cannot_take_a_step_says_so(heapsmith: Cli) -> None:
    done = heapsmith("probe", "--limit", "1KiB")
    assert done.returncode == 2 and "takes no step" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert heapsmith("probe", "--limit", "much").returncode == 2
    assert heapsmith("probe", "--allocator", "nosuch").returncode == 2
