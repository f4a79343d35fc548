"""Each fault planted in the examples is found by name and line in the first screen of the report."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from heapsmith.cli import main

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "leaks"
FIRST_SCREEN = 40
SAID = {
    "leak": r"were still live at exit",
    "spike": r"The peak was a spike",
    "growth": r"grew step by step",
    "fragmentation": r"were live, yet .* stayed resident",
    "storm": r"were temporary",
}


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("faults") / "faults"
    subprocess.run(["c++", "-O1", "-g", "-o", program, EXAMPLES / "faults.cc"], check=True)
    return program


@pytest.mark.parametrize("fault", SAID)
@pytest.mark.parametrize("source", ["faults.py", "faults.cc", "faults_numpy.py"])
def test_a_planted_fault_is_found_by_name_and_line(
    source: str, fault: str, native: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (EXAMPLES / source).read_text().splitlines()
    line = 1 + next(place for place, text in enumerate(lines) if text.endswith(f"planted: {fault}"))
    program = [str(native)] if source == "faults.cc" else [sys.executable, str(EXAMPLES / source)]
    trace = tmp_path / "x.heap"
    subprocess.run(
        [*(sys.executable, "-m", "heapsmith", "record", "-o", trace, "--stacks", "all", "--"), *program, fault],
        check=True, capture_output=True, timeout=100,
    )  # fmt: skip
    capsys.readouterr()
    assert main(["report", str(trace)]) == 0
    screen = capsys.readouterr().out.splitlines()[:FIRST_SCREEN]
    sentences = re.split(r"^• ", "\n".join(screen), flags=re.MULTILINE)
    (told,) = [text for text in sentences if re.search(SAID[fault], text)]
    assert f"{source}:{line}" in told
    assert ("make_answer" if (source, fault) == ("faults.cc", "leak") else "") in told
