"""Picture the Grafana dashboard without Grafana: its own panels and queries, answered by a real Prometheus, drawn by Bokeh.

    python tools/picture_dashboard.py docs/images/dashboard.png [--seconds 90]

Starts a watched service with a limit, `heapsmith metrics` and Prometheus (Debian: apt-get install prometheus), waits, asks
Prometheus every query of the dashboard, and draws each panel where the dashboard puts it. The frame is ours, so it looks
unlike Grafana; the numbers, titles, legends and places are those of the dashboard. Needs Playwright with a Chromium.
"""

import argparse
import contextlib
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path

from bokeh.embed import file_html
from bokeh.layouts import layout
from bokeh.models import Div, NumeralTickFormatter
from bokeh.palettes import Category10_10
from bokeh.plotting import figure
from bokeh.resources import INLINE
from playwright.sync_api import sync_playwright

from heapsmith.run.limits import memory_groups

ROOT = Path(__file__).resolve().parent.parent
GROUPS = dict(
    zip(
        (str(group.directory) for group in memory_groups("self")),
        ("container", "its parent", "above that", "further up"),
        strict=False,
    )
)
"""The cgroups of this process, under names that say more than their paths."""
COLUMN_PX, ROW_PX = 52, 30
PROCESSES = "reports.py|brief.py"
"""What the dashboard's variable is set to."""
FORMATS = {
    "bytes": "0.0 ib",
    "Bps": "0.0 ib",
    "percentunit": "0 %",
    "ops": "0.0a",
    "short": "0.0a",
    "none": "0",
}
CODE = """
import random, time
kept, cycle = [], 0
while True:
    cycle += 1
    try:
        kept.append(bytearray(random.randrange(1 << 18, 1 << 20)))
        kept.append([str(n) for n in range(2000)])
    except MemoryError:
        del kept[: len(kept) // 2]
    if cycle % 400 == 0:
        del kept[len(kept) // 4 :]
    time.sleep(0.02)
"""


@contextlib.contextmanager
def running(words, **options):
    """A process for a while."""
    process = subprocess.Popen(words, text=True, **options)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def free_port():
    """A port that nobody has now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Prometheus:
    """Asks a Prometheus, as Grafana would with its variables filled in."""

    def __init__(self, port, begin, end):
        self.address, self.begin, self.end = f"http://127.0.0.1:{port}/api/v1", begin, end

    def ask(self, expression, *, over_time):
        """Series as ``(labels, times, values)``."""
        text = expression.replace('"$process"', f'"{PROCESSES}"').replace("$__rate_interval", "10s")
        wanted = {"query": text, "time": self.end}
        if over_time:
            wanted = {"query": text, "start": self.begin, "end": self.end, "step": 1}
        verb = "query_range" if over_time else "query"
        with urllib.request.urlopen(f"{self.address}/{verb}?{urllib.parse.urlencode(wanted)}") as answer:
            found = json.load(answer)["data"]["result"]
        for series in found:
            group = series["metric"].get("cgroup")
            if group is not None and group not in GROUPS:
                continue  # another container's
            if group is not None:
                series["metric"]["cgroup"] = GROUPS[group]
            points = series.get("values") or [series["value"]]
            yield (
                series["metric"],
                [when - self.begin for when, _ in points],
                [float(value) for _, value in points],
            )


def write_legend(pattern, labels):
    """Grafana's ``{{label}}``, filled in."""
    text = re.sub(r"{{\s*(\w+)\s*}}", lambda match: labels.get(match[1], ""), pattern or "")
    return text if len(text) < 34 else "…" + text[-32:]


def write_number(value, unit):
    """A stat in its unit."""
    if unit == "bytes":
        return f"{value / 2**20:.1f} MiB"
    return f"{value:.0%}" if unit == "percentunit" else f"{value:.0f}"


def draw(panel, prometheus):
    """One panel as a Bokeh model."""
    place, unit = panel["gridPos"], panel.get("fieldConfig", {}).get("defaults", {}).get("unit", "none")
    size = {"width": place["w"] * COLUMN_PX, "height": place["h"] * ROW_PX}
    if panel["type"] == "row":
        return Div(text=f"<h3 style='margin:2px 6px'>{panel['title']}</h3>", **size)
    if panel["type"] == "stat":
        found = list(prometheus.ask(panel["targets"][0]["expr"], over_time=False))
        text = write_number(found[0][2][0], unit) if found else "no data"
        style = "border:1px solid #ccc;border-radius:4px;margin:3px;padding:8px;height:100%"
        return Div(
            text=f"<div style='{style}'>{panel['title']}<br><span style='font-size:30px'>{text}</span></div>",
            **size,
        )
    if panel["type"] == "table":
        rows = [labels for labels, _, _ in prometheus.ask(panel["targets"][0]["expr"], over_time=False)]
        names = (
            "process",
            "worker",
            "pid",
            "exit_code",
            "allocated_bytes",
            "peak_bytes",
            "limit_bytes",
            "blocks",
            "failures",
        )
        head = "".join(f"<th style='padding:2px 14px'>{name}</th>" for name in names)
        lines = "".join(
            "<tr>"
            + "".join(f"<td style='padding:2px 14px'>{row.get(name, '')}</td>" for name in names)
            + "</tr>"
            for row in rows
        )
        return Div(text=f"{panel['title']}<table><tr>{head}</tr>{lines}</table>", **size)
    plot = figure(title=panel["title"], toolbar_location=None, x_axis_label="s", **size)
    plot.yaxis.formatter = NumeralTickFormatter(format=FORMATS.get(unit, "0.0a"))
    number = 0
    for target in panel["targets"]:
        for labels, times, values in prometheus.ask(target["expr"], over_time=True):
            color = Category10_10[number % len(Category10_10)]
            legend = write_legend(target.get("legendFormat"), labels)
            plot.line(times, values, legend_label=legend or " ", color=color, line_width=2)
            number += 1
    if number:
        plot.legend.location, plot.legend.label_text_font_size = "top_left", "8pt"
        plot.legend.background_fill_alpha, plot.legend.spacing, plot.legend.padding = 0.6, 0, 3
        plot.y_range.start = 0
    else:
        plot.title.text += " (no data)"
    return plot


def photograph(html, target):
    """The page as a picture."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page_file = Path(folder) / "page.html"
        page_file.write_text(html)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 24 * COLUMN_PX + 30, "height": 900})
        page.goto(page_file.as_uri())
        page.wait_for_timeout(2500)
        page.screenshot(path=target, full_page=True)
        browser.close()


def main():
    """Let it run, ask, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("target", type=Path)
    parser.add_argument("--seconds", type=float, default=90)
    arguments = parser.parse_args()
    heapsmith = [sys.executable, "-m", "heapsmith"]
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        service = Path(folder) / "reports.py"
        service.write_text(CODE)
        program = [*heapsmith, "run", "--no-summary", "--limit", "160MiB", "--warn-at", "120MiB", "--"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        for _ in range(2):
            stack.enter_context(running([*program, sys.executable, str(service)], **quiet))
        brief = Path(folder) / "brief.py"
        brief.write_text("import time; x = bytearray(50 << 20); time.sleep(20)")
        stack.enter_context(
            running(
                [*heapsmith, "run", "--no-summary", "--limit", "200MiB", "--", sys.executable, str(brief)],
                **quiet,
            )
        )
        port, own_port = free_port(), free_port()
        stack.enter_context(running([*heapsmith, "metrics", "--port", str(port)], **quiet))
        configuration = Path(folder) / "prometheus.yml"
        configuration.write_text(
            "global: {scrape_interval: 1s}\n"
            f"scrape_configs: [{{job_name: heapsmith, static_configs: [{{targets: ['127.0.0.1:{port}']}}]}}]\n"
        )
        words = [
            f"--config.file={configuration}",
            f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{own_port}",
        ]
        stack.enter_context(running(["prometheus", *words], **quiet))
        begin = time.time()
        time.sleep(arguments.seconds)
        dashboard = json.loads((ROOT / "src/heapsmith/show/grafana/dashboard.json").read_text())
        prometheus = Prometheus(own_port, begin, time.time())
        rows = {}
        for panel in sorted(
            dashboard["panels"], key=lambda panel: (panel["gridPos"]["y"], panel["gridPos"]["x"])
        ):
            rows.setdefault(panel["gridPos"]["y"], []).append(draw(panel, prometheus))
    photograph(file_html(layout(list(rows.values())), INLINE, "heapsmith"), arguments.target)


if __name__ == "__main__":
    main()
