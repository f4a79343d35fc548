"""One endpoint for all watched processes: a pre-fork server under load, processes that are killed, the real Prometheus."""

from __future__ import annotations

import gzip
import http.server
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from prometheus_client.parser import text_string_to_metric_families

from heapsmith.run.fleet import Fleet
from heapsmith.show.metrics import METRIC_NAMES, read_alerts, read_dashboard

PROGRAMS = Path(__file__).parent / "programs"
Cli = Callable[..., "subprocess.CompletedProcess[str]"]
Samples = dict[tuple[str, str], list[tuple[dict[str, str], float]]]


def parse(text: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    found = dict[str, list[tuple[dict[str, str], float]]]()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def start(*words: str, **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-m", "heapsmith", *words], text=True, **options)  # type: ignore[call-overload]


def end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture
def endpoint() -> Iterator[str]:
    """`heapsmith metrics`, as an operator runs it."""
    server = start("metrics", "--port", "0", stderr=subprocess.PIPE)
    assert server.stderr is not None
    address = re.search(r"http://\S+", server.stderr.readline())
    assert address
    yield address[0]
    end(server)


def scrape(endpoint: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    with urllib.request.urlopen(endpoint, timeout=10) as answer:
        return parse(answer.read().decode())


@pytest.fixture
def service(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A pre-fork server of the standard library, watched: its name in metrics and its address."""
    name = tmp_path / f"prefork{os.getpid()}.py"
    name.write_text((PROGRAMS / "prefork.py").read_text())
    port = tmp_path / "port"
    process = start("run", "--no-summary", "--", sys.executable, str(name), str(port))
    for _ in range(200):
        if port.exists() and port.read_text().strip():
            break
        time.sleep(0.05)
    yield name.name, f"http://127.0.0.1:{port.read_text().strip()}/"
    end(process)


def wait_for(condition: Callable[[], object], seconds: float = 15) -> object:
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found or time.monotonic() > deadline:
            return found
        time.sleep(0.2)


def test_a_prefork_server_is_scraped_under_load(service: tuple[str, str], endpoint: str) -> None:
    name, address = service

    def load(count: int) -> None:
        for _ in range(count):
            urllib.request.urlopen(address, timeout=10).read()

    load(20)

    def of(metric: str) -> dict[str, float]:
        return {
            labels["worker"]: value
            for labels, value in scrape(endpoint).get(metric, [])
            if labels["process"] == name
        }

    assert wait_for(lambda: len(of("heapsmith_info")) == 5)  # the parent and four workers
    before = of("heapsmith_allocations_total")
    load(200)
    after = of("heapsmith_allocations_total")
    assert sum(after[worker] > before[worker] for worker in before) >= 2
    live, peak = of("heapsmith_heap_allocated_bytes"), of("heapsmith_heap_allocated_peak_bytes")
    assert all(0 < live[worker] <= peak[worker] for worker in live)
    assert of("process_heap_bytes").keys() == live.keys()
    assert all(of("heapsmith_heap_limit_bytes")[worker] > live[worker] for worker in live)
    assert all(value > 0 for value in of("heapsmith_python_blocks").values())
    families = scrape(endpoint)
    assert set(families) <= METRIC_NAMES
    assert all(
        "pid" not in labels for metric, rows in families.items() for labels, _ in rows if "exit" not in metric
    )


def test_a_killed_process_keeps_its_last_values(
    service: tuple[str, str], endpoint: str, heapsmith: Cli
) -> None:
    name, address = service
    urllib.request.urlopen(address, timeout=10).read()
    listed = json.loads(heapsmith("ps", "--json").stdout)
    workers = [process["pid"] for process in listed if name in " ".join(process["command"])][1:]
    victim = workers[0]
    wait_for(
        lambda: any(labels["process"] == name for labels, _ in scrape(endpoint).get("heapsmith_info", []))
    )
    os.kill(victim, signal.SIGKILL)

    def last_words() -> dict[str, str] | None:
        rows = scrape(endpoint).get("heapsmith_process_exit_info", [])
        return next((labels for labels, _ in rows if labels["pid"] == str(victim)), None)

    labels = wait_for(last_words)
    assert isinstance(labels, dict)
    assert labels["exit_code"] == "unknown"
    assert int(labels["peak_bytes"]) >= int(labels["allocated_bytes"]) > 0


def test_a_program_that_met_its_limit_shows_it(endpoint: str, tmp_path: Path) -> None:
    grow = "while True: kept.append(bytearray(1 << 20))"
    script = tmp_path / f"limited{os.getpid()}.py"  # others may be watched on this machine meanwhile
    script.write_text(f"import time\nkept = []\ntry:\n    {grow}\nexcept MemoryError: pass\ntime.sleep(30)")
    program = start("run", "--no-summary", "--limit", "64MiB", "--", sys.executable, str(script))
    try:

        def refused() -> list[float]:
            rows = scrape(endpoint).get("heapsmith_allocation_failures_total", [])
            mine = [(labels, value) for labels, value in rows if labels["process"] == script.name]
            return [value for labels, value in mine if labels["reason"] == "limit" and value > 0]

        assert wait_for(refused)
        rows = scrape(endpoint)["heapsmith_heap_limit_bytes"]
        assert any(
            labels["process"] == script.name
            and labels["source"] == "cap"
            and labels["effect"] == "null"
            and value == 64 << 20
            for labels, value in rows
        )
    finally:
        end(program)


def test_a_port_that_is_taken_is_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-m", "heapsmith", "metrics", "--port", port],
            capture_output=True,
            text=True,
            timeout=30,
        )
    assert done.returncode == 2
    assert (
        done.stderr
        == f"heapsmith: metrics cannot be served at 127.0.0.1:{port}: Address already in use (choose another --port)\n"
    )


def dashboard_expressions() -> list[str]:
    panels = json.loads(read_dashboard())["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", [])]


def test_dashboard_and_alerts_use_only_metrics_that_exist(heapsmith: Cli) -> None:
    assert json.loads(heapsmith("metrics", "--dashboard").stdout) == json.loads(read_dashboard())
    expressions = dashboard_expressions()
    assert len(expressions) > 15
    text = "\n".join(expressions) + heapsmith("metrics", "--alerts").stdout
    used = set(re.findall(r"\b(?:heapsmith|process)_\w+", text)) - {"heapsmith_"}
    assert used and used <= METRIC_NAMES


def promtool(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path=os.environ.get("PROMETHEUS_BIN", ""))
    if found is None:
        pytest.skip(f"there is no {name} on this machine (apt-get install prometheus)")
    return found


def test_promtool_accepts_rules_and_metrics(tmp_path: Path, service: tuple[str, str], heapsmith: Cli) -> None:
    rules = tmp_path / "alerts.yml"
    rules.write_text(read_alerts())
    tool = promtool("promtool")
    assert subprocess.run([tool, "check", "rules", str(rules)], capture_output=True).returncode == 0
    exposition = heapsmith("metrics", "--once").stdout
    assert "heapsmith_heap_allocated_bytes" in exposition
    checked = subprocess.run([tool, "check", "metrics"], input=exposition, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


RULE_TESTS = """
rule_files: [alerts.yml]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - series: 'heapsmith_info{process="web",worker="0"}'
        values: 1x120
      - series: 'heapsmith_heap_limit_bytes{process="web",worker="0",source="cgroup2",effect="kill"}'
        values: 1000x120
      - series: 'heapsmith_heap_available_bytes{process="web",worker="0"}'
        values: 500x60 50x60
      - series: 'heapsmith_heap_allocated_bytes{process="web",worker="0"}'
        values: 100x30 100+10x89
      - series: 'heapsmith_allocation_failures_total{process="web",worker="0",reason="limit"}'
        values: 0x70 1x50
      - series: 'heapsmith_cgroup_memory_events_total{cgroup="/a",event="max"}'
        values: 0x80 0+5x40
      - series: 'heapsmith_cgroup_memory_events_total{cgroup="/a",event="oom_kill"}'
        values: 0x90 1x30
      - series: 'heapsmith_info{process="other",worker="0"}'
        values: 1x120
    alert_rule_test:
      - {eval_time: 30m, alertname: HeapHeadroomLow, exp_alerts: []}
      - eval_time: 70m
        alertname: HeapHeadroomLow
        exp_alerts:
          - exp_labels: {severity: warning, process: web, worker: "0", source: cgroup2, effect: kill}
            exp_annotations:
              summary: web 0 has less than 10 % of its heap limit left
              description: "The limit is by cgroup2; what happens there: kill."
      - {eval_time: 30m, alertname: HeapWillReachLimit, exp_alerts: []}
      - eval_time: 100m
        alertname: HeapWillReachLimit
        exp_alerts:
          - exp_labels: {severity: warning, process: web, worker: "0", source: cgroup2, effect: kill}
            exp_annotations: {summary: web 0 will reach its heap limit within the hour}
      - {eval_time: 60m, alertname: HeapAllocationsFail, exp_alerts: []}
      - eval_time: 72m
        alertname: HeapAllocationsFail
        exp_alerts:
          - exp_labels: {severity: critical, process: web, worker: "0", reason: limit}
            exp_annotations: {summary: Allocations of web 0 fail (limit)}
      - {eval_time: 79m, alertname: ContainerMeetsMemoryLimit, exp_alerts: []}
      - eval_time: 95m
        alertname: ContainerMeetsMemoryLimit
        exp_alerts:
          - exp_labels: {severity: warning, cgroup: /a, event: max}
            exp_annotations: {summary: "The cgroup /a reclaims at its limit: the OOM kill comes next"}
      - {eval_time: 89m, alertname: ContainerOutOfMemory, exp_alerts: []}
      - eval_time: 93m
        alertname: ContainerOutOfMemory
        exp_alerts:
          - exp_labels: {severity: critical, cgroup: /a, event: oom_kill}
            exp_annotations: {summary: The kernel has killed for memory in /a}
      - eval_time: 20m
        alertname: HeapLimitUnknown
        exp_alerts:
          - exp_labels: {severity: info, process: other, worker: "0"}
            exp_annotations: {summary: Nothing says how much other 0 may hold}
"""


def test_each_alert_fires_when_it_should_and_not_before(tmp_path: Path) -> None:
    tool = promtool("promtool")
    (tmp_path / "alerts.yml").write_text(read_alerts())
    (tmp_path / "tests.yml").write_text(RULE_TESTS)
    done = subprocess.run([tool, "test", "rules", "tests.yml"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_scrapes_it(tmp_path: Path, service: tuple[str, str], endpoint: str) -> None:
    prometheus = promtool("prometheus")
    name, _ = service
    target = endpoint.removeprefix("http://").removesuffix("/metrics")
    (tmp_path / "alerts.yml").write_text(read_alerts())
    (tmp_path / "prometheus.yml").write_text(
        "global: {scrape_interval: 1s, evaluation_interval: 1s}\nrule_files: [alerts.yml]\n"
        f"scrape_configs: [{{job_name: heapsmith, static_configs: [{{targets: ['{target}']}}]}}]\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [prometheus, f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data",
         f"--web.listen-address=127.0.0.1:{port}"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:

        def ask() -> list[object]:
            query = f"count(heapsmith_heap_allocated_bytes{{process=%22{name}%22}})"
            try:
                with urllib.request.urlopen(
                    f"http://127.0.0.1:{port}/api/v1/query?query={query}", timeout=5
                ) as answer:
                    return json.load(answer)["data"]["result"]
            except OSError:
                return []

        result = wait_for(ask, 40)
        assert isinstance(result, list) and result[0]["value"][1] == "5"
        for expression in dashboard_expressions():
            filled = expression.replace('"$process"', f'"{name}"').replace("$__rate_interval", "1m")
            address = f"http://127.0.0.1:{port}/api/v1/query?{urllib.parse.urlencode({'query': filled})}"
            with urllib.request.urlopen(address, timeout=5) as answer:  # anything else than 200 raises
                assert json.load(answer)["status"] == "success"
    finally:
        server.terminate()
        server.wait(20)


def test_opentelemetry_sees_the_same_numbers(service: tuple[str, str]) -> None:
    metrics = pytest.importorskip("opentelemetry.sdk.metrics")
    export = pytest.importorskip("opentelemetry.sdk.metrics.export")
    from heapsmith.show.telemetry import register_instruments

    name, _ = service
    reader = export.InMemoryMetricReader()
    fleet = Fleet()
    provider = metrics.MeterProvider(metric_readers=[reader])
    register_instruments(provider.get_meter("heapsmith"), fleet)
    data = reader.get_metrics_data()
    found = {
        metric.name: {
            point.attributes["heapsmith.worker"]: point.value
            for point in metric.data.data_points
            if point.attributes["process.executable.name"] == name
        }
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    assert len(found["heapsmith.memory.used"]) == 5
    assert all(
        found["heapsmith.memory.used.peak"][w] >= v > 0 for w, v in found["heapsmith.memory.used"].items()
    )
    assert found["heapsmith.memory.limit"] and found["heapsmith.memory.allocations"]
    fleet.close()


class Collector(http.server.BaseHTTPRequestHandler):
    """A collector of OpenTelemetry as small as it can be: keeps what it gets."""

    bodies: ClassVar[list[bytes]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.bodies.append(gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body)
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_opentelemetry_metrics_arrive_at_a_collector(service: tuple[str, str]) -> None:
    protocol = pytest.importorskip("opentelemetry.proto.collector.metrics.v1.metrics_service_pb2")
    name, _ = service
    Collector.bodies.clear()
    collector = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{collector.server_port}/v1/metrics"
    sender = start("metrics", "--port", "0", "--otlp", address, "--interval", "300ms", stderr=subprocess.PIPE)
    try:

        def arrived() -> dict[str, float]:
            for body in reversed(Collector.bodies):
                request = protocol.ExportMetricsServiceRequest.FromString(body)
                found = {
                    metric.name: point.as_int or point.as_double
                    for resource in request.resource_metrics
                    for scope in resource.scope_metrics
                    for metric in scope.metrics
                    for point in (metric.gauge.data_points or metric.sum.data_points)
                    if any(a.value.string_value == name for a in point.attributes)
                }
                if found:
                    return found
            return {}

        found = wait_for(arrived)
        assert isinstance(found, dict)
        assert found["heapsmith.memory.used"] > 0 and found["heapsmith.memory.limit"] > 0
        assert found["heapsmith.memory.used.peak"] >= found["heapsmith.memory.used"]
        assert found["heapsmith.memory.allocations"] > 0
        collector.shutdown()
        collector.server_close()
        assert sender.stderr is not None
        sender.stderr.readline()
        assert sender.stderr.readline() == f"heapsmith: {address} takes no metrics; trying on\n"
    finally:
        end(sender)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--otlp", "nonsense"], "is no address of a collector"),
        (["--otlp", "http://127.0.0.1:9/v1/metrics", "--interval", "0s"], "cannot be sent every 0 s"),
        (["--once", "--otlp", "http://127.0.0.1:9/v1/metrics"], "--once and --otlp exclude each other"),
        (["--keep", "long"], "is not a duration"),
        (["--port", "70000"], "cannot be served at port 70000"),
    ],
)
def test_options_of_metrics_that_make_no_sense_are_one_line(
    heapsmith: Cli, options: list[str], said: str
) -> None:
    pytest.importorskip("opentelemetry.sdk.metrics")
    done = heapsmith("metrics", *options)
    assert done.returncode == 2 and said in done.stderr and len(done.stderr.splitlines()) == 1
