"""Programs that have no fault are not accused of one."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from heapsmith.cli import main
from recorded import record
from watched import needs

JSON_ROWS = """
import json
for turn in range(8):
    rows = [{"id": i, "name": f"n{i}", "values": [i] * 3} for i in range(1000)]
    assert json.loads(json.dumps(rows)) == rows
"""
WORDS = """
import collections, re
words = collections.Counter()
for turn in range(10):
    words.update(re.findall(r"\\w+", " ".join(f"w{i * i % 997}" for i in range(4000))))
"""
TABLE = """
create table t(a, b);
with recursive c(n) as (select 1 union all select n + 1 from c where n < 20000) insert into t select n, 'x' || n from c;
create index i on t(b); select count(*) from t where b like 'x9%'; delete from t where a % 2;
"""
PROGRAMS = {
    "json": (sys.executable, "-c", JSON_ROWS),
    "words": (sys.executable, "-c", WORDS),
    "sqlite3": ("sqlite3", ":memory:", TABLE),
    "sort": ("sh", "-c", "seq 1 20000 | sort -r | uniq | wc -l"),
    "git": ("git", "--version"),
}
_FACTS = {"peak", "leak", "clean", "empty", "growth"}
"""What was held, and whether it rose: true of every program, and said without a judgement."""


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_healthy_program_is_accused_of_nothing(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    needs(PROGRAMS[name][0])
    path = tmp_path / "x.heap"
    assert record(path, *PROGRAMS[name], options=("--stacks", "all", "--no-names")).code == 0
    capsys.readouterr()
    assert main(["report", str(path), "--format", "json"]) == 0
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert findings
    assert [(f["kind"], f["text"]) for f in findings if f["kind"] not in _FACTS] == []
