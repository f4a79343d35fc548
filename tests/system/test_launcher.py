"""`heapsmith run` as a person meets it: streams, exit codes, signals, limits and warnings."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from heapsmith.native import library
from heapsmith.run.watch import Watcher
from heapsmith.units import KiB, MiB
from watched import Watched, needs, preloaded, run_directory

Finished = subprocess.CompletedProcess[str]
Heapsmith = Callable[..., Finished]
HeapsmithRun = Callable[..., tuple[Finished, dict[str, Any]]]


def wait_for(condition: Callable[[], Any], timeout_s: float = 20) -> Any:
    """Wait until something holds, and answer it."""
    end_s = time.monotonic() + timeout_s
    while not (answer := condition()):
        assert time.monotonic() < end_s, "it did not come"
        time.sleep(0.02)
    return answer


@contextlib.contextmanager
def started(
    *command: str | Path, options: tuple[str, ...] = (), **others: Any
) -> Iterator[subprocess.Popen[str]]:
    """The launcher with a program under it, for as long as the context lasts."""
    words = [sys.executable, "-m", "heapsmith", "run", *options, "--", *map(str, command)]
    launcher = subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **others
    )
    try:
        yield launcher
    finally:
        children = psutil.Process(launcher.pid).children(recursive=True) if launcher.poll() is None else []
        launcher.kill()
        for child in children:
            with contextlib.suppress(psutil.Error):
                child.kill()
        launcher.communicate()


def test_streams_and_exit_code_stay_the_programs_own(heapsmith: Heapsmith) -> None:
    script = "cat; printf 'out\\0put'; printf error >&2; exit 7"
    finished = heapsmith("run", "--no-summary", "--", "sh", "-c", script, stdin=None, input="given ")
    assert (finished.returncode, finished.stdout, finished.stderr) == (7, "given out\0put", "error")


def test_a_signal_ends_the_launcher_with_128_and_its_number(heapsmith_run: HeapsmithRun) -> None:
    finished, document = heapsmith_run("sh", "-c", "kill -SEGV $$")
    assert finished.returncode == 128 + signal.SIGSEGV
    assert document["exit"]["signal"] == signal.SIGSEGV
    assert document["exit"]["code"] is None
    assert document["processes"][0]["exit"]["signal"] == signal.SIGSEGV


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["run", "--no-such-option", "--", "true"], 2, "--no-such-option"),
        (["record", "--", "true"], 2, "--output is missing (see `heapsmith record --help`)"),
        (["record", "-o"], 2, "-o has no value"),
        (["info"], 2, "PID is missing"),
        (["compare", "--runs", "x", "--", "true"], 2, "--runs takes a whole number, not 'x'"),
        (["run", "--limit", "many", "--", "true"], 2, "many"),
        (["run", "--limit", "0", "--", "true"], 2, "--limit"),
        (["run", "--limit", "-5", "--", "true"], 2, "-5"),
        (["run", "--warn-at", "12XiB", "--", "true"], 2, "12XiB"),
        (["run", "--json", "/nowhere/x.json", "--", "true"], 2, "/nowhere"),
        (["run", "--json", "/", "--", "true"], 2, "directory"),
        (["run", "--no-summary", "--json", "/dev/full", "--", "true"], 2, "/dev/full"),
        (["run", "--json", "/proc/x.json", "--", "true"], 2, "/proc/x.json"),
        (["run"], 2, "command"),
        (["run", "--"], 2, "command"),
        (["run", "--shadow", "default", "--limit", "1GiB", "--", "true"], 2, "exclude each other"),
        (["run", "--shadow", "default", "--allocator", "small", "--", "true"], 2, "exclude each other"),
        (["run", "--", "no-such-command-anywhere"], 127, "not found"),
        (["run", "--", "/nowhere/program"], 127, "not found"),
        (["run", "--", ""], 127, "an empty word"),
        (["run", "--linger", "1s", "--", "true"], 2, "--live"),
        (["run", "--", "/etc/passwd"], 126, "permission denied"),
        (["run", "--", "/tmp"], 126, "directory"),
        (["info", "999999999"], 2, "999999999"),
        (["info", "0"], 2, "process 0"),
        (["info", "one"], 2, "one"),
        (["info", "1", "--set", "limit"], 2, "limit"),
        (["info", "1", "--set", "colour=red"], 2, "colour"),
        (["info", "1", "--set", "limit=many"], 2, "many"),
        (["no-such-verb"], 2, "no-such-verb"),
        (["ps", "--colour"], 2, "--colour"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_input_is_one_line_and_a_code(
    heapsmith: Heapsmith, words: list[str], code: int, says: str
) -> None:
    finished = heapsmith(*words)
    assert finished.returncode == code, finished.stderr
    assert finished.stdout == ""
    assert finished.stderr.startswith("heapsmith: ")
    assert finished.stderr.count("\n") == 1, finished.stderr
    assert says in finished.stderr


def test_the_document_may_go_into_a_pipe(heapsmith: Heapsmith, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE, text=True) as reader:
        assert heapsmith("run", "--no-summary", "--json", pipe, "--", "true").returncode == 0
        document, _ = reader.communicate(timeout=20)
    assert json.loads(document)["exit"]["code"] == 0


def test_a_script_without_an_interpreter_is_not_executable(heapsmith: Heapsmith, tmp_path: Path) -> None:
    for text, code in (("#!/nowhere/interpreter\n", 127), ("no interpreter\n", 126)):
        script = tmp_path / f"script{code}"
        script.write_text(text)
        script.chmod(0o755)
        finished = heapsmith("run", "--", script)
        assert finished.returncode == code
        assert finished.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGQUIT]
)
def test_a_signal_to_the_launcher_reaches_the_program(number: signal.Signals) -> None:
    code = f"""
import signal, sys
def handle(number, frame):
    print('got', number, flush=True); sys.exit(33)
signal.signal({int(number)}, handle)
print('ready', flush=True)
while True: signal.pause()
"""
    with started(sys.executable, "-c", code) as launcher:
        assert launcher.stdout is not None
        assert launcher.stdout.readline() == "ready\n"
        launcher.send_signal(number)
        output, errors = launcher.communicate(timeout=20)
    assert output == f"got {int(number)}\n"
    assert launcher.returncode == 33, errors


def test_the_program_goes_on_when_its_launcher_is_killed(tmp_path: Path) -> None:
    done = tmp_path / "done"
    code = f"""
import os, pathlib, sys, time
before = os.getppid()
print(os.getpid(), flush=True)
while os.getppid() == before: time.sleep(0.01)
keep = [str(i) for i in range(100000)]
pathlib.Path({str(done)!r}).write_text('done')
"""
    with started(sys.executable, "-c", code) as launcher:
        assert launcher.stdout is not None
        pid = int(launcher.stdout.readline())
        launcher.send_signal(signal.SIGKILL)
        launcher.wait()
        # It is still found by whoever looks.
        with contextlib.closing(Watcher(pids=[pid])) as watcher:
            assert [process.pid for process in watcher.poll()] == [pid]
        wait_for(lambda: done.exists() and done.read_text() == "done")


def test_the_last_values_survive_a_kill(heapsmith_run: HeapsmithRun, compiled: Callable[..., Path]) -> None:
    code = """
import os, signal
keep = [bytes(1000) for _ in range(20000)]
os.kill(os.getpid(), signal.SIGKILL)
"""
    finished, document = heapsmith_run(sys.executable, "-c", code)
    assert finished.returncode == 128 + signal.SIGKILL
    process = document["processes"][0]
    assert process["exit"] == {"code": None, "signal": 9, "oom_killed": False}
    assert process["live_bytes"] > 20_000_000
    assert process["live_blocks"] > 20_000
    rows = process["size_classes"]
    assert sum(row["live_bytes"] for row in rows) == process["live_bytes"]


def test_a_kill_in_the_middle_of_the_storm_tears_nothing(compiled: Callable[..., Path]) -> None:
    """Live values stay within what the program ever held, and sums within what an event in flight can be off."""
    for turn in range(8):
        with run_directory() as directory:
            program = subprocess.Popen(
                [str(compiled("threads.cc")), "crossing", "4"],
                env=preloaded(directory),
                stdout=subprocess.DEVNULL,
            )
            time.sleep(0.004 * turn)
            program.kill()
            program.wait()
            with contextlib.closing(Watcher(directory.path)) as watcher:
                for process in watcher.poll():
                    assert (
                        0
                        <= process.live_bytes
                        <= process.live_bytes_peak + process.live_bytes_peak_error_bound
                    )
                    by_class = sum(row.live_bytes for row in process.size_classes)
                    assert abs(by_class - process.live_bytes) <= 6 * 400 * KiB
                    assert process.allocations >= process.frees


def test_stopping_and_continuing_is_the_programs_own_affair() -> None:
    with started("sh", "-c", "echo $$; kill -STOP $$; echo continued; exit 5") as launcher:
        assert launcher.stdout is not None
        pid = int(launcher.stdout.readline())
        wait_for(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
        os.kill(pid, signal.SIGCONT)
        output, errors = launcher.communicate(timeout=20)
    assert (launcher.returncode, output) == (5, "continued\n"), errors


def lines_about(errors: str, word: str) -> list[str]:
    return [line for line in errors.splitlines() if line.startswith("heapsmith: ") and word in line]


def test_one_warning_for_each_upward_crossing(heapsmith: Heapsmith) -> None:
    code = """
import time
for turn in range(3):
    keep = [bytearray(1 << 20) for _ in range(40)]
    time.sleep(0.3)
    for _ in range(50):       # to and fro about the threshold, above where it is armed again
        del keep[31:]; keep += [bytearray(1 << 20) for _ in range(9)]
    del keep
    time.sleep(0.3)
"""
    finished = heapsmith("run", "--warn-at", "32MiB", "--no-summary", "--", sys.executable, "-c", code)
    assert finished.returncode == 0, finished.stderr
    assert len(finished.stderr.splitlines()) == 3, finished.stderr
    assert len(lines_about(finished.stderr, "32.0 MiB")) == 3


def test_a_limit_below_the_start_is_the_programs_own_failure_and_said(heapsmith: Heapsmith) -> None:
    finished = heapsmith("run", "--limit", "100KiB", "--no-summary", "--", sys.executable, "-c", "print(1)")
    assert finished.returncode != 0
    assert finished.stdout == ""
    assert lines_about(finished.stderr, "100 KiB"), finished.stderr


def test_limit_and_warning_change_while_it_runs(heapsmith: Heapsmith) -> None:
    code = """
import sys
keep = [bytearray(1 << 20) for _ in range(50)]
print('ready', flush=True)
refused = 0
for line in sys.stdin:
    try:
        keep.append(bytearray(int(line) << 20)); print('yes', flush=True)
    except MemoryError: print('no', flush=True)
"""
    words = [sys.executable, "-m", "heapsmith", "run", "--no-summary", "--", sys.executable, "-c", code]
    program = subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert program.stdin is not None
    assert program.stdout is not None

    def ask(mebibytes: int) -> str:
        assert program.stdin is not None
        assert program.stdout is not None
        program.stdin.write(f"{mebibytes}\n")
        program.stdin.flush()
        return program.stdout.readline()

    try:
        assert program.stdout.readline() == "ready\n"
        listed = json.loads(heapsmith("ps", "--json").stdout)
        pid = next(process["pid"] for process in listed if process["ppid"] == program.pid)
        assert ask(20) == "yes\n"
        assert heapsmith("info", str(pid), "--set", "limit=80MiB").returncode == 0
        assert ask(20) == "no\n"
        finished = heapsmith("info", str(pid), "--set", "limit=100MiB", "--set", "warn-at=75MiB", "--json")
        document = json.loads(finished.stdout)
        assert document["pid"] == pid
        assert ask(10) == "yes\n"
        assert ask(30) == "no\n"
        document = json.loads(heapsmith("info", str(pid), "--json").stdout)
        assert document["limit_bytes"] == 100 * MiB
        assert document["max_total_heap_size"] <= 100 * MiB
        assert document["warnings"] == 1
        assert document["refused"] >= 2
        assert heapsmith("info", str(pid), "--set", "limit=none").returncode == 0
        assert ask(30) == "yes\n"
        program.stdin.close()
        errors = program.stderr.read() if program.stderr else ""
        assert program.wait(20) == 0
        assert lines_about(errors, "75.0 MiB"), errors
    finally:
        program.kill()
        program.wait()


UNWATCHABLE = {
    "static": ("gcc", ("-static",), "static"),
    "musl": ("musl-gcc", (), "musl"),
    "musl-static": ("musl-gcc", ("-static",), "static"),
    "32-bit": ("gcc", ("-m32",), "64-bit"),
}


@pytest.mark.parametrize("kind", UNWATCHABLE)
def test_what_cannot_be_watched_is_named_in_one_line_and_runs(
    heapsmith: Heapsmith, watch: Callable[..., Watched], compiled: Callable[..., Path], kind: str
) -> None:
    compiler, flags, says = UNWATCHABLE[kind]
    try:
        program = compiled("plain.c", *flags, compiler=compiler, name=f"plain-{kind}")
    except subprocess.CalledProcessError:
        pytest.skip(f"{compiler} {' '.join(flags)} cannot build here")
    finished = heapsmith("run", "--no-summary", "--", program, "7")
    assert (finished.returncode, finished.stdout) == (7, "plain 7\n")
    assert finished.stderr.count("\n") == 1, finished.stderr
    assert says in finished.stderr
    if kind == "32-bit":
        return  # the 32-bit linker itself says what it does not load
    # A child of a watched shell is started by the shell: nobody can take the preload from it.
    full = watch(["sh", "-c", f"{program} 7"])
    assert (full.code, full.output) == (7, "plain 7\n"), full.errors
    # After exec, nothing stale is shown as alive.
    full = watch(["sh", "-c", f"exec {program} 7"])
    assert (full.code, full.output) == (7, "plain 7\n"), full.errors


def test_a_program_that_is_replaced_by_one_that_cannot_be_watched_is_over(
    compiled: Callable[..., Path],
) -> None:
    try:
        program = compiled("plain.c", "-static", name="plain-static")
    except subprocess.CalledProcessError:
        pytest.skip("gcc -static cannot build here")
    with run_directory() as directory:
        shell = subprocess.Popen(
            ["sh", "-c", f"read line; exec {program} 0 wait"],
            env=preloaded(directory),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert shell.stdin is not None
        assert shell.stdout is not None
        try:
            with contextlib.closing(Watcher(directory.path)) as watcher:
                wait_for(lambda: watcher.poll() and watcher.poll()[0].alive)
                shell.stdin.write("go\n")
                shell.stdin.flush()
                assert shell.stdout.readline() == "plain 0\n"
                assert not watcher.poll()[0].alive
        finally:
            shell.kill()
            shell.communicate()


def test_a_setuid_program_is_named_and_runs(heapsmith: Heapsmith, compiled: Callable[..., Path]) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can make a program setuid to another user")
    source = compiled("plain.c")
    program = source.with_name(f"{source.name}-setuid")
    program.write_bytes(source.read_bytes())
    os.chown(program, 65534, 65534)
    program.chmod(0o4755)
    finished = heapsmith("run", "--no-summary", "--", program, "7")
    assert (finished.returncode, finished.stdout) == (7, "plain 7\n")
    assert finished.stderr.count("\n") == 1
    assert "setuid" in finished.stderr


@pytest.fixture(params=["address", "leak", "thread"])
def sanitized(request: pytest.FixtureRequest, compiled: Callable[..., Path]) -> Path:
    try:
        return compiled("plain.c", f"-fsanitize={request.param}", name=f"plain-{request.param}")
    except subprocess.CalledProcessError:
        pytest.skip(f"gcc -fsanitize={request.param} cannot build here")


def test_a_program_with_a_sanitizer_is_named_and_runs(heapsmith: Heapsmith, sanitized: Path) -> None:
    finished = heapsmith("run", "--no-summary", "--", sanitized, "7")
    assert (finished.returncode, finished.stdout) == (7, "plain 7\n"), finished.stderr
    assert finished.stderr.count("\n") == 1
    assert "sanitizer" in finished.stderr


@pytest.mark.parametrize("options", [(), ("--allocator", "default")])
def test_a_child_with_a_sanitizer_runs_as_if_nothing_were_preloaded(
    heapsmith: Heapsmith, sanitized: Path, options: Sequence[str]
) -> None:
    """Whoever starts it hands the preload on: that is taken from it, and what the user preloads stays."""
    script = f"{sanitized} 7; echo $?; exec {sanitized} 6 preload"
    for behind in ("", "libutil.so.1"):
        finished = heapsmith(
            *("run", "--no-summary", *options, "--", "sh", "-c", script),
            env=os.environ | {"LD_PRELOAD": behind, "ASAN_OPTIONS": "verify_asan_link_order=0"},
        )
        assert finished.stdout == f"plain 7\n7\nplain 6\n{behind or 'nothing'}\n"
        assert (finished.returncode, finished.stderr) == (6, "")


def test_a_heap_may_lie_where_names_have_spaces(heapsmith_run: HeapsmithRun, tmp_path: Path) -> None:
    heap = shutil.copy(library("libheapsmith_small.so"), tmp_path / "my heaps:new one.so")
    finished, document = heapsmith_run("sh", "-c", "exit 3", options=["--no-summary", "--allocator", heap])
    assert (finished.returncode, finished.stderr) == (3, "")
    assert document["processes"][0]["allocator"].endswith("new_one.so")


def test_it_may_be_installed_where_names_have_spaces(tmp_path: Path) -> None:
    package = Path(sys.modules["heapsmith"].__file__ or "").parent
    place = tmp_path / "with space:and colon"
    shutil.copytree(package, place / "heapsmith", ignore=shutil.ignore_patterns("__pycache__"))
    document = tmp_path / "run.json"
    finished = subprocess.run(
        [
            sys.executable,
            "-m",
            "heapsmith",
            "run",
            "--no-summary",
            "--json",
            document,
            "--",
            "sh",
            "-c",
            "ls /; exit 3",
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=place,
        env=os.environ | {"PYTHONPATH": ""},
    )
    assert (finished.returncode, finished.stderr) == (3, "")
    assert len(json.loads(document.read_text())["processes"]) >= 2


def in_namespace(script: str) -> list[str]:
    needs("unshare")
    command = ["unshare", "-m", "--propagation", "private", "sh", "-c"]
    if (
        subprocess.run(
            [*command, "mount -t tmpfs none /dev/shm"], capture_output=True, check=False
        ).returncode
        != 0
    ):
        pytest.skip("no mount namespace may be made here")
    return [*command, script]


def test_processes_with_ids_of_their_own_are_shown_by_those_they_have_here(heapsmith: Heapsmith) -> None:
    """A sandbox's first process is number 1 there; number 1 here is another, and outlives it."""
    needs("unshare")
    inner = "import sys; keep = bytearray(9 << 20); print('ready', flush=True); sys.stdin.readline()"
    enter = ["unshare", "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*enter, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no process namespace may be made here")
    words = ["run", "--no-summary", "--", *enter, sys.executable, "-c", inner]
    program = subprocess.Popen(
        [sys.executable, "-m", "heapsmith", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        processes = json.loads(heapsmith("ps", "--json").stdout)
        outer = next(process for process in processes if process["ppid"] == program.pid)
        held = next(process for process in processes if process["ppid"] == outer["pid"])
        assert held["live_bytes"] > 9 * MiB
        assert held["resident_bytes"] > 9 * MiB
        assert psutil.Process(held["pid"]).parent() == psutil.Process(outer["pid"])
        assert json.loads(heapsmith("info", str(held["pid"]), "--json").stdout)["command"][-1] == inner
        _, errors = program.communicate("\n", timeout=20)
        assert (program.returncode, errors) == (0, "")
        # Nothing is left that could be taken for the process that has number 1 here.
        assert all(process["pid"] != 1 for process in json.loads(heapsmith("ps", "--json").stdout))
    finally:
        program.kill()
        program.wait()


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        ("mount -t tmpfs -o size=64k none /dev/shm", "No space left"),
        ("mount -t tmpfs -o ro none /dev/shm", "Read-only file system"),
        (
            "mount -t tmpfs -o size=1200k none /dev/shm && head -c 1100k /dev/zero > /dev/shm/x",
            "No space left",
        ),
    ],
)
def test_without_room_in_shared_memory_it_is_watched_through_descriptors(prepare: str, says: str) -> None:
    inner = "import os; keep = [bytes(1000) for _ in range(2000)]; print(len(os.listdir('/dev/shm')) < 3)"
    script = (
        f"{prepare} && unset XDG_RUNTIME_DIR && exec {sys.executable} -m heapsmith run --json /dev/stdout "
        f'-- sh -c "{sys.executable} -c \\"{inner}; import time; time.sleep(3)\\"; exit 3"'
    )
    finished = subprocess.run(
        in_namespace(script), capture_output=True, text=True, check=False, timeout=60, env=dict(os.environ)
    )
    assert finished.returncode == 3, finished.stderr
    said, _, document = finished.stdout.partition("\n")
    assert said == "True"
    assert says in finished.stderr
    names = [process["name"] for process in json.loads(document)["processes"]]
    assert any("python" in name for name in names), names


def test_a_region_that_outgrows_the_room_loses_nothing_but_rows() -> None:
    """The room ends while threads come: they share a row, and the program runs on."""
    code = """
import threading
barrier = threading.Barrier(120)
def work():
    keep = [bytes(3000) for _ in range(10)]
    barrier.wait()
threads = [threading.Thread(target=work) for _ in range(120)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print('fine')
"""
    needs("unshare")
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"heapsmith-room-{os.getpid()}.py"
    path.write_text(code)
    inner = f"head -c 900k /dev/zero > /dev/shm/fill; exec {sys.executable} {path}"
    script = (
        "mount -t tmpfs -o size=1400k none /dev/shm && unset XDG_RUNTIME_DIR && "
        f"exec {sys.executable} -m heapsmith run --json /dev/stdout --no-summary -- sh -c '{inner}'"
    )
    try:
        finished = subprocess.run(
            in_namespace(script), capture_output=True, text=True, check=False, timeout=60
        )
    finally:
        path.unlink()
    assert finished.returncode == 0, finished.stderr
    said, _, document = finished.stdout.partition("\n")
    assert said == "fine"
    process = json.loads(document)["processes"][0]
    assert process["allocations"] > 1200
