"""The keeper: a small process that starts one program, watches its whole tree from outside, and ends it.

    echo REQUEST | python -I -S keeper.py

Standard library alone, started without ``site``: the kernel counts the resident pages of the process that
forks towards the peak of the program it starts (``ru_maxrss`` survives exec), so the forking process has to
be small; and a watcher with an interpreter of its own is not slowed by, and does not slow, the progress shown
meanwhile. It adopts orphans (``PR_SET_CHILD_SUBREAPER``), so that every process of the trial, and no other, is
a descendant of it and can be ended. When its standard input closes (its caller has gone), it ends the tree and
itself.

Request and answer are one JSON document each; `run.outside` is the only one who writes and reads them.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import resource
import select
import signal
import socket
import sys
import time

TYPE_CHECKING = False  # the module `typing` would be a tenth of what is resident here
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
PR_SET_CHILD_SUBREAPER = 36
SHORTEST_INTERVAL_S = 0.005
SAMPLES_PER_RUN = 1000
COST_RATIO = 100  # at most 1 % of a processor goes into looking
LOOKS_FOR_LIBRARY = 40
FEWEST_SAMPLES = 3
LINGER_S = 0.5
GROUP_PREFIX = "heapsmith-trial-"


def describe_code(code: int | None) -> str:
    """Say how a program ended.

    Example:
        >>> describe_code(3), describe_code(-11)
        ('exit code 3', 'signal 11 (SIGSEGV)')
    """
    if code is None:
        return "it did not end"
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {-code} ({signal.Signals(-code).name})"
    except ValueError:
        return f"signal {-code}"


def read(path: str) -> bytes:
    """Return a file of /proc, or nothing when its process has gone."""
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123
            return file.read()
    except OSError:
        return b""


def children(pid: int | str) -> list[int]:
    """Return the pids of the children of all threads of a process."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208
            found += map(int, read(f"/proc/{pid}/task/{thread}/children").split())
    return found


class Tree:
    """All descendants of this process, except the load generator and its own."""

    def __init__(self) -> None:
        self.pids: list[int] = []
        self.load_pid: int | None = None
        self.executables: list[str] = []

    def refresh(self) -> None:
        """Find out who is in the tree now."""
        pids: list[int] = []
        todo = [pid for pid in children("self") if pid != self.load_pid]
        while todo:
            pid = todo.pop()
            pids.append(pid)
            with contextlib.suppress(OSError):
                program = os.readlink(f"/proc/{pid}/exe")  # noqa: PTH115
                if program not in self.executables:
                    self.executables.append(program)
            todo += children(pid)
        self.pids = pids

    def resident_bytes(self) -> int:
        """Sum what is resident: shared pages counted once where there are several processes."""
        shares = len(self.pids) > 1
        total = 0
        for pid in self.pids:
            value = None
            if shares:
                match = re.search(rb"^Pss:\s+(\d+) kB", read(f"/proc/{pid}/smaps_rollup"), re.MULTILINE)
                value = int(match[1]) << 10 if match else None
            if value is None:
                fields = read(f"/proc/{pid}/statm").split()
                value = int(fields[1]) * PAGE_BYTES if len(fields) > 1 else 0
            total += value
        return total

    def peak_of_one(self) -> int:
        """Return the largest high-water mark that the kernel keeps for one living process."""
        marks = [re.search(rb"VmHWM:\s+(\d+) kB", read(f"/proc/{pid}/status")) for pid in self.pids]
        return max((int(mark[1]) << 10 for mark in marks if mark), default=0)

    def end(self, how: int) -> None:
        """Send a signal to every process of the tree."""
        self.refresh()
        for pid in self.pids:
            with contextlib.suppress(OSError):
                os.kill(pid, how)


class Group:
    """A cgroup of the trial's own, where one can be made: the kernel charges it with every page, and keeps the peak."""

    def __init__(self) -> None:
        self.home = self.path = self.peak_file = None
        self.why_not = "there is no memory controller"
        for line in read("/proc/self/cgroup").decode(errors="replace").splitlines():
            _, controllers, place = line.split(":", 2)
            if "memory" in controllers.split(","):
                root, peak_file = "/sys/fs/cgroup/memory", "memory.max_usage_in_bytes"
            elif not controllers:
                root, peak_file = "/sys/fs/cgroup", "memory.peak"
            else:
                continue
            home = root + place.rstrip("/")
            # Where a group has processes, version 2 gives its children no controllers: then a sibling has them.
            for parent in dict.fromkeys((home, os.path.dirname(home))):  # noqa: PTH120
                if parent.startswith(root) and self._make(home, parent, peak_file):
                    return

    def _make(self, home: str, parent: str, peak_file: str) -> bool:
        self._sweep(parent)
        path = f"{parent}/{GROUP_PREFIX}{os.getpid()}"
        try:
            os.mkdir(path)  # noqa: PTH102
        except OSError as error:
            self.why_not = error.strerror
            return False
        if not read(f"{path}/{peak_file}"):
            self.why_not = "its memory is not counted"
            os.rmdir(path)  # noqa: PTH106
            return False
        self.home, self.path, self.peak_file = home, path, peak_file
        return True

    @staticmethod
    def _sweep(parent: str) -> None:
        """Remove the groups of keepers that were killed."""
        with contextlib.suppress(OSError):
            for name in os.listdir(parent):  # noqa: PTH208
                pid = name.removeprefix(GROUP_PREFIX)
                if pid != name and not os.path.exists(f"/proc/{pid}"):  # noqa: PTH110
                    with contextlib.suppress(OSError):
                        os.rmdir(f"{parent}/{name}")  # noqa: PTH106

    def enter(self) -> None:
        """Go in, so that whoever is started now is in it from its first page."""
        self._move(self.path)

    def leave(self) -> None:
        """Go back to where this process was."""
        self._move(self.home)

    def _move(self, path: str | None) -> None:
        if path is None:
            return
        try:
            with open(f"{path}/cgroup.procs", "w") as file:  # noqa: PTH123
                file.write(str(os.getpid()))
        except OSError as error:
            self.why_not = error.strerror
            self.close()

    def close(self) -> int | None:
        """Remove the group and return the most bytes that it was ever charged with."""
        if self.path is None:
            return None
        digits = read(f"{self.path}/{self.peak_file}").strip()
        path, self.path = self.path, None
        for _ in range(20):
            with contextlib.suppress(OSError):
                os.rmdir(path)  # noqa: PTH106
                break
            time.sleep(0.005)
        return int(digits) if digits.isdigit() else None


class Keeper:
    """One trial: start, watch, load, settle, stop."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.request = request
        self.tree = Tree()
        self.samples: list[tuple[float, int]] = []
        self.peak_of_one = 0
        self.objects: set[str] = set()
        self.reached: dict[int, bool] = {}
        self.looks: dict[int, int] = {}
        self.next_sample = self.next_refresh = self.next_scan = 0.0
        self.started = time.monotonic()
        self.deadline: float | None = None
        self.marks: dict[str, float] = {}
        self.root = 0
        self.root_fd: int | None = None
        self.load_fd: int | None = None
        self.load_usage: resource.struct_rusage | None = None
        self.status: int | None = None
        self.ended: float | None = None
        self.killed = False

    # -- looking

    def _look(self) -> None:
        now = time.monotonic()
        if now >= self.next_refresh:
            used = time.process_time()
            self.tree.refresh()
            self.peak_of_one = max(self.peak_of_one, self.tree.peak_of_one())
            self._look_for_library()
            spent = time.process_time() - used
            self.next_refresh = now + max(2 * SHORTEST_INTERVAL_S, COST_RATIO * spent)
        if self.request["scan"] and now >= self.next_scan:
            self._scan()
            self.next_scan = now + max(0.01, (now - self.started) / 4)
        begin, used = time.monotonic(), time.process_time()
        if begin >= self.next_sample:
            value = self.tree.resident_bytes()
            if value:
                self.samples.append((begin - self.started, value))
            spent = time.process_time() - used
            interval = max(SHORTEST_INTERVAL_S, COST_RATIO * spent, (begin - self.started) / SAMPLES_PER_RUN)
            self.next_sample = begin + interval

    def _look_for_library(self) -> None:
        library = self.request["library"]
        if library is None:
            return
        for pid in self.tree.pids:
            if self.reached.get(pid) or self.looks.get(pid, 0) >= LOOKS_FOR_LIBRARY:
                continue
            maps = read(f"/proc/{pid}/maps")
            if maps:
                self.looks[pid] = self.looks.get(pid, 0) + 1
                self.reached[pid] = os.fsencode(library) in maps

    def _scan(self) -> None:
        for pid in self.tree.pids:
            for line in read(f"/proc/{pid}/maps").splitlines():
                fields = line.split(None, 5)
                if len(fields) == 6 and fields[1][2:3] == b"x" and fields[5].startswith(b"/"):
                    self.objects.add(os.fsdecode(fields[5]))

    # -- waiting

    def _wait(self, done: Callable[[], bool], limit_s: float | None = None) -> str:
        """Watch until ``done()`` is true, the program ends, the limit passes or the caller has gone."""
        limit = None if limit_s is None else time.monotonic() + limit_s
        while True:
            self._look()
            if done():
                return "done"
            now = time.monotonic()
            if limit is not None and now >= limit:
                return "limit"
            if self.deadline is not None and now >= self.deadline:
                return "timeout"
            until = min(filter(None, (self.next_sample, limit, self.deadline)))
            watched = [sys.stdin.fileno()] + [fd for fd in (self.root_fd, self.load_fd) if fd is not None]
            ready = select.select(watched, [], [], max(0.0, until - now))[0]
            if sys.stdin.fileno() in ready:
                self._kill_all()
                self.group.close()
                os._exit(1)
            if self.root_fd in ready:
                self._reap_root()
            if self.load_fd in ready:
                self._reap_load()
            if self.status is not None:
                return "ended"

    def _reap_root(self) -> None:
        assert self.root_fd is not None
        self.ended = time.monotonic()
        self.status = os.waitpid(self.root, 0)[1]
        os.close(self.root_fd)
        self.root_fd = None

    def _reap_load(self) -> None:
        assert self.load_fd is not None and self.tree.load_pid is not None
        _, status, usage = os.wait4(self.tree.load_pid, 0)
        self.marks["load_end_s"] = time.monotonic() - self.started
        self.load_usage = usage
        self.marks["load_status"] = os.waitstatus_to_exitcode(status)
        with contextlib.suppress(OSError):
            os.killpg(self.tree.load_pid, signal.SIGKILL)
        os.close(self.load_fd)
        self.load_fd = None

    def _spawn(
        self, command: list[str], environment: dict[str, str], stdout: str | None, stderr: str | None
    ) -> tuple[int, int]:
        write = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, stdout or os.devnull, write, 0o600),
            (os.POSIX_SPAWN_OPEN, 2, stderr or os.devnull, write, 0o600),
        ]
        signals = [signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT]
        pid = os.posix_spawnp(
            command[0], command, environment, file_actions=actions, setsid=True, setsigdef=signals
        )
        return pid, os.pidfd_open(pid)

    # -- the trial

    def run(self) -> dict[str, Any]:
        """Do the trial and return what was seen."""
        request = self.request
        os.chdir(request["directory"])
        self.started = time.monotonic()
        self.deadline = None if request["timeout_s"] is None else self.started + request["timeout_s"]
        self.group = group = Group()
        group.enter()
        try:
            self.root, self.root_fd = self._spawn(
                request["command"], request["environment"], request["stdout"], request["stderr"]
            )
            group.leave()
        except OSError as error:
            group.leave()
            group.close()
            return {"failed": f"cannot be started: {error.strerror}"}
        failed = self._serve(request["server"]) if request["server"] else self._finish()
        peak = max(self.peak_of_one, max((value for _, value in self.samples), default=0))
        duration = (self.ended or time.monotonic()) - self.started
        left = self._linger() if failed is None and not request["server"] else 0
        self._kill_all()
        charged = group.close()
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        load = self.load_usage
        if usage.ru_maxrss << 10 > self._floor() and load is None:
            peak = max(peak, usage.ru_maxrss << 10)
        elif len(self.samples) < FEWEST_SAMPLES:
            peak = None
        code = None if self.status is None else os.waitstatus_to_exitcode(self.status)
        if left:
            failed = f"it ended but left {left} process(es) running: start it in the foreground"

        def used(field: str) -> float:
            return getattr(usage, field) - (getattr(load, field) if load else 0)

        return {
            "failed": failed,
            "code": code,
            "duration_s": duration,
            "user_s": used("ru_utime"),
            "system_s": used("ru_stime"),
            "minor_faults": used("ru_minflt"),
            "major_faults": used("ru_majflt"),
            "voluntary_switches": used("ru_nvcsw"),
            "involuntary_switches": used("ru_nivcsw"),
            "resident_bytes_peak": peak,
            "charged_bytes_peak": charged,
            "no_group": "" if charged is not None else group.why_not,
            "samples": self.samples,
            "marks": self.marks,
            "killed": self.killed,
            "objects": sorted(self.objects),
            "executables": self.tree.executables,
            "reached": self._was_reached(),
        }

    def _finish(self) -> str | None:
        how = self._wait(lambda: False)
        return f"still running after {self.request['timeout_s']:g} s (ended)" if how == "timeout" else None

    def _serve(self, server: dict[str, Any]) -> str | None:
        how = self._wait(lambda: self._is_ready(server), server["ready_within_s"])
        if how != "done":
            return self._why_not("before it was ready", how)
        self.marks["ready_s"] = time.monotonic() - self.started
        if server["load"] is not None:
            environment = server["load_environment"]
            try:
                self.tree.load_pid, self.load_fd = self._spawn(
                    server["load"], environment, server["load_stdout"], server["load_stderr"]
                )
            except OSError as error:
                return f"the load command cannot be started: {error.strerror}"
            self.marks["load_start_s"] = time.monotonic() - self.started
            how = self._wait(lambda: self.load_fd is None)
            if how != "done":
                return self._why_not("while the load command ran", how)
            if self.marks["load_status"] != 0:
                return f"the load command failed: {describe_code(int(self.marks['load_status']))}"
        how = self._wait(lambda: False, server["settle_s"])
        if how != "limit":
            return self._why_not("while it settled", how)
        self.marks["settled_s"] = time.monotonic() - self.started
        with contextlib.suppress(OSError):
            os.kill(self.root, server["stop_signal"])
        if self._wait(lambda: False, server["stop_within_s"]) != "ended":
            self.killed = True
        return None

    def _why_not(self, when: str, how: str) -> str:
        if how == "ended":
            assert self.status is not None
            code = os.waitstatus_to_exitcode(self.status)
            self.tree.refresh()
            if code == 0 and self.tree.pids:
                return f"it went into the background {when}: start it in the foreground"
            return f"it ended {when}: {describe_code(code)}"
        if how == "timeout":
            return f"the time for a trial, {self.request['timeout_s']:g} s, was over {when}"
        return f"it did not get ready within {self.request['server']['ready_within_s']:g} s"

    def _is_ready(self, server: dict[str, Any]) -> bool:
        if server["ready_port"] is not None:
            with contextlib.suppress(OSError), socket.create_connection(tuple(server["ready_port"]), 0.2):
                return True
            return False
        output = b"".join(read(path) for path in (self.request["stdout"], self.request["stderr"]) if path)
        return re.search(server["ready_pattern"].encode(), output) is not None

    def _linger(self) -> int:
        """Give what the program left behind a moment to end by itself, and count what does not."""
        until = time.monotonic() + LINGER_S
        while True:
            self._reap_orphans()
            self.tree.refresh()
            if not self.tree.pids or time.monotonic() > until:
                return len(self.tree.pids)
            time.sleep(0.01)

    def _reap_orphans(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass

    def _kill_all(self) -> None:
        while True:
            if self.tree.load_pid is not None and self.load_fd is not None:
                with contextlib.suppress(OSError):
                    os.killpg(self.tree.load_pid, signal.SIGKILL)
                self.tree.load_pid = None
            self.tree.end(signal.SIGKILL)
            if self.root_fd is not None and select.select([self.root_fd], [], [], 1)[0]:
                self._reap_root()
            self._reap_orphans()
            self.tree.refresh()
            if not self.tree.pids:
                return
            time.sleep(0.005)

    def _floor(self) -> int:
        """Bytes of the peak that may be this process's own: what it was when it forked."""
        match = re.search(rb"VmHWM:\s+(\d+) kB", read("/proc/self/status"))
        return int(match[1]) << 10 if match else 1 << 62

    def _was_reached(self) -> bool | None:
        if self.request["library"] is None or not self.reached:
            return None
        if any(self.reached.values()):
            return True
        # A short life may have been looked at only between fork and exec.
        return False if max(self.looks.values()) > 1 else None


def main() -> None:
    """Read the request, do it, write the answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    answer = Keeper(json.loads(sys.stdin.readline())).run()
    sys.stdout.write(json.dumps(answer))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
