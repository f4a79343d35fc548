"""Programs as they are: the same results as unwatched, every process seen, counters that make sense."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from heapsmith.run.values import Process
from heapsmith.run.watch import Watcher
from heapsmith.units import MiB
from watched import Watched, needs, preloaded, run_directory


def assert_sane(process: Process) -> None:
    """What holds for every process at any time."""
    assert process.lost == 0
    assert process.live_bytes >= 0
    assert process.live_blocks >= 0
    assert process.live_bytes <= process.live_bytes_peak
    assert process.mapped_bytes >= 0
    assert all(row.live_blocks >= 0 and row.live_bytes >= 0 for row in process.size_classes)
    assert sum(row.allocations for row in process.size_classes) == process.allocations
    assert sum(thread.allocations for thread in process.threads) == process.allocations
    assert process.requested_live_bytes <= process.live_bytes


def unwatched(command: list[str], **options: Any) -> tuple[int, str]:
    finished = subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False, **options
    )
    return finished.returncode, finished.stdout


PIPELINES = [
    "seq 100000 | sort -R --random-source=/dev/zero | sort -n | uniq | tail -1",
    "for i in 1 2 3 4 5; do (echo $i; echo $i | tr 1-5 a-e) & wait; done | sort",
    "x=$(printf '%s\\n' {1..2000} | grep 7 | wc -l); echo $x; exit $((x % 200))",
    "trap 'echo trapped' EXIT; false || echo no; set -o pipefail; false | true",
    "mapfile -t lines < <(seq 1000); echo ${#lines[@]}; exec cat /dev/null",
]


@pytest.mark.parametrize("script", PIPELINES)
def test_bash_pipelines(watch: Callable[..., Watched], script: str) -> None:
    needs("bash")
    command = ["bash", "-c", script]
    full = watch(command)
    assert (full.code, full.output) == unwatched(command)
    assert full.errors == ""
    for process in full.processes:
        assert_sane(process)
    pids = {process.pid for process in full.processes}
    # Every process but the first has its parent among them.
    assert all(process.ppid in pids for process in full.processes if process.pid != full.first.pid)


def test_every_command_of_a_pipeline_is_in_the_tree_with_its_exit_code(watch: Callable[..., Watched]) -> None:
    needs("bash", "seq", "sort", "grep")
    full = watch(["bash", "-c", "seq 1000 | sort -r | grep -q no-such-line; exit 0"])
    last_images = {process.pid: process for process in full.processes}
    ended = {process.name: process.exit.code for process in last_images.values() if process.exit is not None}
    assert ended == {"bash": 0, "seq": 0, "sort": 0, "grep": 1}


def test_make_with_jobs(watch: Callable[..., Watched], tmp_path: Path) -> None:
    needs("make", "gcc")
    for number in range(6):
        (tmp_path / f"part{number}.c").write_text(
            "".join(f"int f{number}_{n}(int x) {{ return x * {n}; }}\n" for n in range(200))
        )
    (tmp_path / "Makefile").write_text(
        "parts := $(patsubst %.c,%.o,$(wildcard part*.c))\n"
        "all: $(parts)\n\techo done\n%.o: %.c\n\tgcc -O1 -c $< -o $@\n"
    )
    full = watch(["make", "-s", "-j2", "-C", str(tmp_path)])
    assert (full.code, full.errors) == (0, "")
    names = [process.name for process in full.processes]
    assert names.count("cc1") == 6
    assert names.count("as") == 6
    for process in full.processes:
        assert_sane(process)
        assert process.exit is not None
    assert all(process.exit and process.exit.code == 0 for process in full.processes if process.name == "cc1")


def test_the_compiler_makes_the_same_object(watch: Callable[..., Watched], tmp_path: Path) -> None:
    needs("g++")
    source = tmp_path / "large.cc"
    source.write_text(
        "#include <map>\n#include <regex>\n#include <string>\nstd::map<std::string, std::regex> all;\n"
    )
    objects = [tmp_path / name for name in ("plain.o", "watched.o")]
    assert unwatched(["g++", "-O1", "-c", str(source), "-o", str(objects[0])])[0] == 0
    full = watch(["g++", "-O1", "-c", source, "-o", objects[1]])
    assert (full.code, full.errors) == (0, "")
    assert objects[0].read_bytes() == objects[1].read_bytes()
    compiler = next(process for process in full.processes if process.name == "cc1plus")
    # It cuts its own pages from what it maps.
    assert compiler.live_bytes_peak > 2 * MiB
    assert compiler.mapped_bytes_peak > 10 * MiB
    assert_sane(compiler)


def test_git(watch: Callable[..., Watched], tmp_path: Path) -> None:
    needs("git")
    script = (
        "git init -q . && git config user.email a@b && git config user.name a && seq 5000 > numbers && "
        "git add numbers && git commit -q -m one && seq 6000 > numbers && git diff --stat && git gc -q && "
        "git log --format=%s && git fsck"
    )
    environment = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", "HOME": str(tmp_path)}
    folders = [tmp_path / "plain", tmp_path / "watched"]
    for folder in folders:
        folder.mkdir()
    expected = unwatched(["sh", "-c", script], cwd=folders[0], env=os.environ | environment)
    full = watch(["sh", "-c", script], cwd=folders[1], environment=environment)
    assert (full.code, full.output) == expected
    assert sum(process.name == "git" for process in full.processes) >= 8
    for process in full.processes:
        assert_sane(process)


def test_sqlite(watch: Callable[..., Watched], tmp_path: Path) -> None:
    needs("sqlite3")
    script = (
        "create table t(a integer primary key, b text);"
        "with recursive n(x) as (select 1 union all select x + 1 from n where x < 30000)"
        " insert into t select x, hex(x * 7919) from n;"
        "create index i on t(b); select count(*), sum(length(b)) from t where b like '%7%';"
    )
    expected = unwatched(["sqlite3", str(tmp_path / "plain.db"), script])
    full = watch(["sqlite3", tmp_path / "watched.db", script])
    assert (full.code, full.output) == expected
    assert full.first.live_bytes_peak > MiB
    assert full.first.threads_started == 1
    assert full.first.live_bytes_peak_error_bound == 0
    assert_sane(full.first)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[tuple[int, subprocess.Popen[bytes], Watcher]]:
    needs("redis-server", "redis-benchmark", "redis-cli")
    port = free_port()
    with run_directory() as directory:
        server = subprocess.Popen(
            [
                "redis-server",
                "--port",
                str(port),
                "--save",
                "",
                "--dir",
                str(tmp_path),
                "--loglevel",
                "warning",
            ],
            env=preloaded(directory),
            stdout=subprocess.DEVNULL,
        )
        watcher = Watcher(directory.path)
        try:
            for _ in range(200):
                if unwatched(["redis-cli", "-p", str(port), "ping"])[1] == "PONG\n":
                    break
                time.sleep(0.05)
            yield port, server, watcher
        finally:
            server.kill()
            server.wait()
            watcher.close()


def test_redis_under_load(redis: tuple[int, subprocess.Popen[bytes], Watcher]) -> None:
    port, server, watcher = redis
    before = watcher.poll()[0]
    load = [
        "redis-benchmark",
        "-p",
        str(port),
        "-n",
        "20000",
        "-q",
        "-t",
        "set,get,lpush",
        "-r",
        "5000",
        "-d",
        "200",
    ]
    assert unwatched(load)[0] == 0
    assert unwatched(["redis-cli", "-p", str(port), "bgsave"])[0] == 0
    after = watcher.poll()[0]
    assert after.pid == server.pid
    assert after.alive
    assert after.allocations - before.allocations > 20_000
    assert after.live_bytes - before.live_bytes > 5000 * 200
    assert_sane(after)
    assert unwatched(["redis-cli", "-p", str(port), "shutdown", "nosave"])[0] == 0
    assert server.wait(20) == 0
    ended = {process.pid: process for process in watcher.poll()}[server.pid]
    assert ended.exit is not None
    assert ended.exit.code == 0


def test_node(watch: Callable[..., Watched]) -> None:
    needs("node")
    code = "let a=[]; for (let i=0;i<3e5;i++) a.push({i, s: 'x'+i}); console.log(a.length, Buffer.alloc(5e6).length)"
    full = watch(["node", "-e", code])
    assert (full.code, full.output) == (0, "300000 5000000\n"), full.errors
    assert full.first.live_bytes_peak > 5_000_000
    assert_sane(full.first)


def test_java(watch: Callable[..., Watched], tmp_path: Path) -> None:
    needs("java")
    if shutil.which("javac") is None:
        full = watch(["java", "-version"])
        assert full.code == 0
        assert "version" in full.errors
    else:
        (tmp_path / "Work.java").write_text(
            "class Work { public static void main(String[] a) { long n = 0; for (int i = 0; i < 200000; i++)"
            " n += new StringBuilder().append(i).toString().length(); System.out.println(n); } }"
        )
        full = watch(["java", "-Xmx64m", "Work.java"], cwd=tmp_path)
        assert (full.code, full.output) == (0, "1088890\n"), full.errors
    java = next(process for process in full.processes if process.name.startswith("java"))
    assert java.threads_started > 5
    assert_sane(java)


def test_a_debugger_and_a_tracer_work_as_without(watch: Callable[..., Watched]) -> None:
    needs("strace")
    command = ["strace", "-f", "-o", "/dev/null", "sh", "-c", "echo traced | cat; exit 4"]
    full = watch(command)
    if unwatched(command)[0] != 4:
        pytest.skip("nothing may be traced here")
    assert (full.code, full.output) == (4, "traced\n")


def test_the_command_line_watches_itself(watch: Callable[..., Watched]) -> None:
    full = watch(
        [sys.executable, "-m", "heapsmith", "run", "--no-summary", "--", "sh", "-c", "echo inner; exit 3"]
    )
    assert (full.code, full.output, full.errors) == (3, "inner\n", "")


@pytest.mark.parametrize("tool", ["memcheck", "massif", "callgrind"])
def test_valgrind_sees_a_program_as_if_it_were_not_watched(
    watch: Callable[..., Watched], compiled: Callable[..., Path], tool: str
) -> None:
    needs("valgrind")
    files = [f"--{tool}-out-file=/dev/null"] if tool != "memcheck" else ["--error-exitcode=99"]
    command = ["valgrind", "-q", f"--tool={tool}", *files, str(compiled("calls.c")), "reallocations"]
    full = watch(command)
    assert (full.code, full.output) == unwatched(command)
    assert full.errors == ""
    subject = full.first
    if tool == "callgrind":  # it leaves malloc to the program
        assert subject.allocator == "glibc"
        assert subject.allocations > 0
    else:
        assert subject.allocator == "Valgrind's"
        assert any("Valgrind answers malloc" in note for note in subject.notes)
