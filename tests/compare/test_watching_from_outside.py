"""A run is watched from outside: figures are right, faults have names, and nothing of a trial survives it."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from heapsmith.errors import RunError
from heapsmith.lab.trials import Workload, run_once
from heapsmith.peers.candidate import read_candidate
from heapsmith.run.outside import Service, Subject, Watched, watch

MiB = 1 << 20


def python(code: str, **more) -> Watched:
    command = (sys.executable, "-I", "-S", "-c", code)
    return watch(Subject(command=command, directory="/", environment=dict(os.environ), **more))


def alive(marker: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if marker.encode() in path.read_bytes():
                found.append(path.parent.name)
        except OSError:
            continue
    return found


def test_the_peak_is_that_of_the_program_and_the_end_is_what_it_gave_back() -> None:
    seen = python("import time; x = bytearray(96 << 20); time.sleep(0.1); del x; time.sleep(0.5)")
    assert seen.failed is None
    assert seen.resident_bytes_peak == pytest.approx(96 * MiB + 9 * MiB, abs=6 * MiB)
    assert seen.resident_bytes_end is not None and seen.resident_bytes_end < 20 * MiB
    assert seen.resident_bytes_mean is not None
    assert seen.resident_bytes_end < seen.resident_bytes_mean < seen.resident_bytes_peak
    assert seen.page_faults is not None and seen.page_faults > 96 * MiB / 4096 * 0.9


def test_a_spike_shorter_than_the_sampling_is_still_in_the_peak() -> None:
    seen = python("x = bytearray(200 << 20); del x; import time; time.sleep(0.2)")
    assert seen.resident_bytes_peak is not None and seen.resident_bytes_peak > 200 * MiB


def test_the_peak_of_a_small_program_is_not_that_of_who_started_it() -> None:
    seen = watch(Subject(command=("sleep", "0.2"), directory="/", environment=dict(os.environ)))
    assert seen.resident_bytes_peak is not None and seen.resident_bytes_peak < 4 * MiB


def test_forked_workers_share_pages_and_these_count_once() -> None:
    seen = python(
        "import os, time\n"
        "x = bytearray(64 << 20)\n"
        "children = [os.fork() for _ in range(3)] if os.fork() else [0]\n"
        "time.sleep(0.6)\n"
    )
    assert seen.resident_bytes_end is not None
    assert 60 * MiB < seen.resident_bytes_end < 110 * MiB


def test_processes_that_share_nothing_add_up() -> None:
    code = "import time; x = bytearray(40 << 20); time.sleep(0.6)"
    seen = python(
        f"import subprocess, sys\nps = [subprocess.Popen([sys.executable, '-I', '-S', '-c', {code!r}])"
        " for _ in range(2)]\n[p.wait() for p in ps]"
    )
    assert seen.resident_bytes_peak is not None and seen.resident_bytes_peak > 80 * MiB


def test_processor_time_is_of_all_processes() -> None:
    burn = "import time; end = time.process_time() + 0.15\nwhile time.process_time() < end: pass"
    seen = python(f"import subprocess, sys\nsubprocess.run([sys.executable, '-I', '-S', '-c', {burn!r}])")
    assert seen.user_s is not None and seen.system_s is not None
    assert seen.user_s + seen.system_s >= 0.15


def test_a_program_that_hangs_is_ended_with_all_of_its_processes_and_nothing_else() -> None:
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60) # bystander-1"])
    try:
        began = time.monotonic()
        seen = python(
            "import os, time\n"
            "if os.fork() == 0:\n    os.setsid()\n    os.fork()\n"
            "time.sleep(60)  # hang-4711",
            timeout_s=0.5,
        )
        assert seen.failed is not None and "still running after 0.5 s" in seen.failed
        assert time.monotonic() - began < 10
        assert alive("hang-4711") == []
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_program_that_goes_into_the_background_is_said_to() -> None:
    seen = python(
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(60)  # background-4712"
    )
    assert seen.failed is not None and "foreground" in seen.failed
    assert alive("background-4712") == []


def test_signals_and_exit_codes_have_names() -> None:
    workload = Workload(
        command=("/bin/sh", "-c", "kill -SEGV $$"), directory="/", environment=dict(os.environ)
    )
    assert run_once(workload, read_candidate("system"))[0].failed == "signal 11 (SIGSEGV)"
    workload = Workload(command=("/bin/sh", "-c", "exit 3"), directory="/", environment=dict(os.environ))
    assert run_once(workload, read_candidate("system"))[0].failed == "exit code 3"


def test_a_library_that_arrives_is_seen_to_and_one_that_cannot_is_a_failure(tmp_path) -> None:
    source = tmp_path / "wait.c"
    source.write_text("#include <unistd.h>\nint main(void) { usleep(300000); return 0; }\n")
    static, dynamic = tmp_path / "static", tmp_path / "dynamic"
    subprocess.run(["cc", "-static", source, "-o", static], check=True)
    subprocess.run(["cc", source, "-o", dynamic], check=True)
    candidate = read_candidate("jemalloc")
    environment = dict(os.environ)
    good, _ = run_once(Workload(command=(str(dynamic),), directory="/", environment=environment), candidate)
    bad, _ = run_once(Workload(command=(str(static),), directory="/", environment=environment), candidate)
    assert good.failed is None and good.reached is True
    assert bad.failed is not None and "never arrived" in bad.failed


def test_a_server_is_loaded_when_ready_and_measured_after_it_settled() -> None:
    service = Service(ready="{port}", load="sleep 0.2; echo 'Requests/sec: 123.5'", settle_s=0.5)
    workload = Workload(
        command=(sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "{port}"),
        directory="/",
        environment=dict(os.environ),
        service=service,
        metric="Requests/sec: ([0-9.]+)",
    )
    seen, metric = run_once(workload, read_candidate("system"))
    assert seen.failed is None
    assert metric == 123.5
    assert seen.load_s == pytest.approx(0.2, abs=0.15)
    assert seen.resident_bytes_settled is not None and seen.resident_bytes_settled > 5 * MiB


def test_a_server_may_be_ready_by_what_it_prints() -> None:
    code = "import time; print('listening', flush=True); time.sleep(30)"
    seen = python(code, service=Service(ready="listening", settle_s=0.1))
    assert seen.failed is None
    assert seen.duration_s is not None and seen.duration_s < 10


@pytest.mark.parametrize(
    ("code", "service", "expected"),
    [
        ("raise SystemExit(4)", Service(ready="never"), "ended before it was ready: exit code 4"),
        ("import time; time.sleep(60)", Service(ready="never", ready_within_s=0.3), "did not get ready"),
        ("print('up', flush=True); import time; time.sleep(60)",
         Service(ready="up", load="exit 7"), "failed: exit code 7"),
        ("print('up', flush=True); import time; time.sleep(.3); raise SystemExit(9)",
         Service(ready="up", load="sleep 5"), "ended while the load command ran: exit code 9"),
    ],
)  # fmt: skip
def test_what_goes_wrong_with_a_server_is_said(code: str, service: Service, expected: str) -> None:
    seen = python(code, service=service)
    assert seen.failed is not None and expected in seen.failed


def test_a_server_that_does_not_listen_to_its_signal_is_killed_and_said_to_be() -> None:
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('up', flush=True); time.sleep(60)"
    )
    seen = python(code, service=Service(ready="up", settle_s=0.1, stop_within_s=0.2))
    assert seen.failed is None and seen.killed
    polite = python(code.replace("SIG_IGN", "SIG_DFL"), service=Service(ready="up", settle_s=0.1))
    assert polite.failed is None and not polite.killed


def test_the_last_words_are_of_whoever_failed() -> None:
    code = (
        "import sys, time; print('up', flush=True); time.sleep(.3)\n"
        "sys.exit('out of beans')  # while it is loaded"
    )
    seen = python(code, service=Service(ready="up", load="echo all is well >&2; sleep 5"))
    assert seen.complaint.strip() == "out of beans"
    seen = python(code.replace(".3", "60"), service=Service(ready="up", load="echo no route >&2; exit 1"))
    assert seen.complaint.strip() == "no route"


def test_a_port_that_another_program_has_is_refused() -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        workload = Workload(
            command=("sleep", "1"), directory="/", environment=dict(os.environ), service=Service(ready=port)
        )
        with pytest.raises(RunError, match="is taken"):
            run_once(workload, read_candidate("system"))


def test_the_program_ends_when_whoever_asked_for_the_run_is_killed() -> None:
    script = (
        "import os, sys\nfrom heapsmith.run.outside import *\n"
        "watch(Subject(command=(sys.executable, '-c', 'import time; time.sleep(60) # orphan-4713'),"
        " directory='/', environment=dict(os.environ)))"
    )
    caller = subprocess.Popen([sys.executable, "-c", script])
    until = time.monotonic() + 20
    while not [pid for pid in alive("orphan-4713") if int(pid) != caller.pid] and time.monotonic() < until:
        time.sleep(0.05)
    caller.kill()
    caller.wait()
    until = time.monotonic() + 10
    while alive("orphan-4713") and time.monotonic() < until:
        time.sleep(0.05)
    assert alive("orphan-4713") == []
