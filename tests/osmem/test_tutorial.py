from __future__ import annotations

import doctest
from pathlib import Path

TUTORIAL = Path(__file__).resolve().parents[2] / "docs" / "osmem.md"


def test_every_code_block_of_the_tutorial_runs_as_printed() -> None:
    results = doctest.testfile(str(TUTORIAL), module_relative=False)
    assert results.failed == 0
    assert results.attempted > 50


def test_every_python_block_of_the_tutorial_is_a_doctest() -> None:
    blocks = TUTORIAL.read_text().split("```python\n")[1:]
    assert len(blocks) > 15
    assert all(block.lstrip().startswith(">>> ") for block in blocks)


def test_the_tutorial_builds_malloc_in_five_steps() -> None:
    headings = [line for line in TUTORIAL.read_text().splitlines() if line.startswith("## Step ")]
    assert [heading.split(":")[0] for heading in headings] == [f"## Step {number}" for number in range(1, 6)]
