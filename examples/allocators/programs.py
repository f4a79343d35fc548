"""Programs people use, on every preset and on the system's own malloc: do they answer the same?

    python examples/allocators/programs.py [--python PYTHON] [--allocator NAME ...] [--program NAME ...]

Each program runs once as it is and once on each heap, preloaded; the table says for each what was different, or nothing.
PYTHON is an interpreter that has the package ``test`` (CPython's own test suite); the one that runs this if left out.
Programs that are not on this machine are left out, and said.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from heapsmith.lab.subjects import resolve_subject

PRESETS = ("default", "small", "pow2", "hardened")
PYTHON_TESTS = ("test_threading", "test_json", "test_gc")
# A package of modules since 3.12, one module before.
SPAWN_TESTS = tuple(
    f"test_multiprocessing_spawn.test_{part}" for part in ("misc", "threads", "manager", "processes")
)
TIMEOUT_S = 900
Environment = dict[str, str]
Answer = tuple[int, str]

C_SOURCE = "".join(
    f"struct s{n} {{ int a[{n + 1}]; }}; int f{n}(struct s{n} *p) {{ int t = 0;"
    f" for (int i = 0; i <= {n}; i++) t += p->a[i] * i; return t; }}\n"
    for n in range(400)
)
PERL = (
    "my %h; $h{$_ % 5000} .= 'x' x ($_ % 90) for 1..300000;"
    " print length(join '', map { $h{$_} } sort keys %h), qq(\\n)"
)
BASH = (
    "for i in $(seq 400); do x+=$(printf '%04d' $i); done; echo ${#x};"
    " declare -A m; for i in {1..20000}; do m[$i]=$i; done; echo ${#m[@]}; (echo sub) | cat"
)
NODE = (
    "const a = [...Array(300000).keys()].map(i => ({i, s: String(i)}));"
    " let n = 0; for (const o of a) n += o.s.length; console.log(n, JSON.stringify(a).length)"
)
JAVA = (
    "import java.util.*; public class Work { public static void main(String[] a) throws Exception {"
    " Map<String,byte[]> m = new HashMap<>(); long n = 0;"
    " for (int i = 0; i < 200000; i++) { m.put('k' + String.valueOf(i % 3000), new byte[i % 700]); n += m.size(); }"
    " Thread[] t = new Thread[8]; long[] r = new long[8];"
    " for (int k = 0; k < 8; k++) { final int q = k; t[k] = new Thread(() -> { for (int i = 0; i < 100000; i++)"
    ' r[q] += new String("x" + i).hashCode(); }); t[k].start(); } for (Thread x : t) x.join();'
    ' System.out.println(n + " " + Arrays.toString(r)); } }'
)
SQL = (
    "create table t(a integer primary key, b text, c real);"
    "with recursive c(x) as (select 1 union all select x + 1 from c where x < 120000)"
    " insert into t select x, hex(x * 7919), x / 3.0 from c;"
    "create index i on t(b); delete from t where a % 3 = 0;"
    "select count(*), max(b), round(sum(c), 3) from t; select b from t order by b desc limit 5; vacuum;"
)


def run(words: list[str], environment: Environment, *, given: str = "", cwd: Path | None = None) -> Answer:
    done = subprocess.run(
        words,
        env=environment,
        input=given,
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=TIMEOUT_S,
        check=False,
    )
    return done.returncode, done.stdout


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(
    words: list[str], environment: Environment, port: int
) -> Generator[subprocess.Popen[bytes], None, None]:
    server = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(400):
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield server
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def gcc(environment: Environment) -> Answer:
    return run(["gcc", "-O2", "-x", "c", "-S", "-o", "-", "-"], environment, given=C_SOURCE)


def git(environment: Environment) -> Answer:
    with tempfile.TemporaryDirectory() as folder:
        script = (
            "git init -q . && git config user.email a@b && git config user.name n && for i in $(seq 60); do"
            " seq $i $((i * 40)) > file$((i % 7)); git add -A; GIT_AUTHOR_DATE=@$i GIT_COMMITTER_DATE=@$i"
            " git commit -q -m c$i; done; git gc -q; git log --stat --format=%H%s; git diff HEAD~30 | wc; git fsck"
        )
        return run(["bash", "-c", script], environment, cwd=Path(folder))


def sqlite(environment: Environment) -> Answer:
    return run(["sqlite3", ":memory:", SQL], environment)


def java(environment: Environment) -> Answer:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "Work.java").write_text(JAVA)
        if shutil.which("javac"):
            run(["javac", "Work.java"], dict(os.environ), cwd=Path(folder))
            return run(["java", "-Xmx128m", "Work"], environment, cwd=Path(folder))
        return run(["java", "-Xmx64m", "-XX:+PrintFlagsFinal", "-version"], environment)


def redis(environment: Environment) -> Answer:
    port = free_port()
    words = ["redis-server", "--port", str(port), "--save", "", "--appendonly", "no"]
    with serving(words, environment, port) as server:
        client = ["redis-cli", "-p", str(port)]
        load = [
            "redis-benchmark",
            "-p",
            str(port),
            "-n",
            "20000",
            "-c",
            "20",
            "-d",
            "200",
            "-r",
            "5000",
            "-q",
        ]
        code = subprocess.run(
            [*load, "-t", "set,get,lpush,rpop,hset,sadd"], capture_output=True, check=False
        ).returncode
        script = "for i=1,20000 do redis.call('set','k'..i,string.rep('v',i%900)) end return redis.call('strlen','k777')"
        _, said = run([*client, "eval", script, "0"], dict(os.environ))
        _, saved = run([*client, "bgsave"], dict(os.environ))
        _, deleted = run([*client, "flushall"], dict(os.environ))
        alive = server.poll() is None
    return code, f"{said}{saved}{deleted}alive {alive} ended {server.returncode}"


def nginx(environment: Environment) -> Answer:
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        root.chmod(0o755)
        (root / "page.html").write_text("hello " * 20000)
        (root / "nginx.conf").write_text(
            f"daemon off; worker_processes 2; error_log {root}/error.log; pid {root}/pid; events {{}}\n"
            "http { access_log off; gzip on; gzip_types text/html;\n"
            f"server {{ listen 127.0.0.1:{port}; root {root}; }} }}\n"
        )
        with serving(["nginx", "-c", str(root / "nginx.conf"), "-p", folder], environment, port) as server:
            page = f"http://127.0.0.1:{port}/page.html"
            load = f"for i in $(seq 200); do curl -s --compressed {page} | wc -c; done | sort | uniq -c"
            answer = run(["bash", "-c", load], dict(os.environ))
    return answer[0], f"{answer[1]} ended {server.returncode}"


def gdb(environment: Environment) -> Answer:
    words = ["gdb", "-q", "-batch", "-nx", "-ex", "python print(sum(len(str(i)) for i in range(100000)))"]
    return run([*words, "-ex", "info sharedlibrary", "/bin/true"], environment)


def python_test(python: str, name: str) -> Callable[[Environment], Answer]:
    def test(environment: Environment) -> Answer:
        done = subprocess.run(
            [python, "-m", "unittest", "-v", f"test.{name}"],
            env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
        ran = re.search(r"^Ran (\d+) tests?", done.stderr, re.MULTILINE)
        headings = sorted(re.findall(r"^(?:FAIL|ERROR): (\w+)", done.stderr, re.MULTILINE))
        return done.returncode, f"ran {ran[1] if ran else '?'} failed {' '.join(headings) or 'none'}"

    return test


def programs(python: str) -> dict[str, tuple[str, Callable[[Environment], Answer]]]:
    simple = {
        "bash": ["bash", "-c", BASH],
        "perl": ["perl", "-e", PERL],
        "node": ["node", "-e", NODE],
    }
    found: dict[str, tuple[str, Callable[[Environment], Answer]]] = {
        name: (words[0], lambda environment, words=words: run(words, environment))
        for name, words in simple.items()
    }
    found |= {
        "gcc": ("gcc", gcc), "git": ("git", git), "sqlite3": ("sqlite3", sqlite), "java": ("java", java),
        "gdb": ("gdb", gdb), "nginx": ("nginx", nginx), "redis": ("redis-server", redis),
    }  # fmt: skip
    found |= {
        f"CPython {name}": (python, python_test(python, name)) for name in (*PYTHON_TESTS, *SPAWN_TESTS)
    }
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--allocator", nargs="*", default=PRESETS)
    parser.add_argument("--program", nargs="*")
    wanted = parser.parse_args()
    differences = 0
    print("| program | without | " + " | ".join(wanted.allocator) + " |")
    print("|---" * (2 + len(wanted.allocator)) + "|")
    for name, (executable, body) in programs(wanted.python).items():
        if wanted.program and name not in wanted.program:
            continue
        if shutil.which(executable) is None:
            print(f"| {name} | not on this machine |" + " |" * len(wanted.allocator), flush=True)
            continue
        base = {**os.environ, "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"}
        plain = body(base)
        cells = [f"exit {plain[0]}" + (f", {plain[1]}" if name.startswith("CPython") else "")]
        for allocator in wanted.allocator:
            subject = resolve_subject(allocator)
            on_it = {**base, **subject.variables, "LD_PRELOAD": str(subject.library)}
            if not name.startswith("CPython"):
                on_it["PYTHONMALLOC"] = "malloc"
            try:
                answer = body(on_it)
            except subprocess.TimeoutExpired:
                answer = (-1, "it hangs")
            same = answer == plain
            differences += not same
            cells.append("same" if same else f"exit {answer[0]}, {answer[1][-160:]}".replace("\n", " "))
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
