from __future__ import annotations

import http.client
import io
import json
import socket
import time
from collections.abc import Callable

import polars as pl
import pytest
from playwright.sync_api import Page, expect

import believable
from believable import Machine
from heapsmith.errors import HeapsmithError, RunError
from heapsmith.run.values import Exit
from heapsmith.show.figures import NUMBERS_JS
from heapsmith.show.labels import class_label
from heapsmith.show.page import PageServer, serve
from heapsmith.show.save import KINDS
from heapsmith.units import MiB, format_bytes, format_count
from page.browsing import Open, tile, wait_until

Serve = Callable[[Machine], PageServer]


def sort_by_size(page: Page) -> None:
    page.locator("#table thead button", has_text="Size class").click()


def cells(page: Page, row: int = 0) -> list[str]:
    return page.locator("#table tbody tr").nth(row).locator("td").all_inner_texts()


def link(page: Page, name: str) -> object:
    return page.evaluate(f"Bokeh.documents[0].get_model_by_name('heapsmith-link').{name}")


def test_the_page_shows_totals_curves_heat_and_one_row_for_each_size_class_in_use(
    serve_machine: Serve, open_page: Open
) -> None:
    machine = Machine(time_s=30)
    page = open_page(serve_machine(machine).url)
    process = machine.poll()[0]
    expect(page).to_have_title("python3 · heapsmith")
    expect(page.locator("#state")).to_have_text("running")
    expect(page.locator(".tile[data-name='Live'] strong")).to_have_text(format_bytes(process.live_bytes))
    assert tile(page, "Peak") == format_bytes(process.live_bytes_peak)
    rows = page.locator("#table tbody tr")
    assert rows.count() == len(process.size_classes)
    assert cells(page)[1] == format_bytes(max(row.live_bytes for row in process.size_classes))
    sort_by_size(page)
    first = process.size_classes[0]
    assert cells(page)[:5] == [
        class_label(first.class_bytes),
        format_bytes(first.live_bytes),
        format_bytes(first.live_bytes_peak),
        format_count(first.live_blocks),
        format_count(first.allocations),
    ]
    assert page.locator("#table tfoot td").first.inner_text() == "SUM"
    machine.time_s = 40
    later = machine.poll()[0]
    expect(page.locator(".tile[data-name='Live'] strong")).to_have_text(format_bytes(later.live_bytes))
    curve = page.evaluate(
        """() => {
          const models = [...Bokeh.documents[0]._all_models.values()];
          const sources = models.filter((model) => model.type === "ColumnDataSource");
          const data = (name) => sources.map((s) => s.get_column(name)).find((column) => column?.length);
          return {live: Array.from(data("live_bytes")), image: data("image")[0].shape};
        }"""
    )
    assert curve["live"][0] == process.live_bytes
    assert curve["live"][-1] == later.live_bytes
    assert curve["image"][1] == 160
    assert page.locator("canvas").count() >= 3


def test_a_thread_can_be_chosen_and_total_again(serve_machine: Serve, open_page: Open) -> None:
    machine = Machine(time_s=30)
    page = open_page(serve_machine(machine).url)
    sort_by_size(page)
    process = machine.poll()[0]
    options = page.locator("#thread option").all_inner_texts()
    assert options[0].startswith("Total")
    assert any(text.startswith("ended threads") for text in options)
    thread = next(t for t in process.threads if t.name == "worker-2")
    page.get_by_label("Thread").select_option(str(thread.tid))
    expect(page.locator("#table tbody td").nth(4)).to_have_text(
        format_count(thread.size_classes[0].allocations)
    )
    assert page.locator("#table tfoot td").nth(2).inner_text() == "–"
    page.get_by_label("Thread").select_option("total")
    expect(page.locator("#table tbody td").nth(4)).to_have_text(
        format_count(process.size_classes[0].allocations)
    )


def test_threads_that_come_later_appear_in_the_chooser(serve_machine: Serve, open_page: Open) -> None:
    machine = Machine([{"threads": 2}], time_s=30)
    page = open_page(serve_machine(machine).url)
    expect(page.locator("#thread option")).to_have_count(3)
    machine.processes[0]["threads"] = 7
    expect(page.locator("#thread option")).to_have_count(8)


def test_reset_counts_from_here_on_and_can_be_undone(serve_machine: Serve, open_page: Open) -> None:
    machine = Machine(time_s=30)
    page = open_page(serve_machine(machine).url)
    sort_by_size(page)
    before = machine.poll()[0]
    page.get_by_role("button", name="Reset").click()
    expect(page.locator("#since")).to_have_text("counted since 30.0 s")
    expect(page.locator(".empty")).to_be_visible()
    machine.time_s = 42
    after = machine.poll()[0]
    grown = after.size_classes[0].allocations - before.size_classes[0].allocations
    expect(page.locator("#table tbody td").nth(4)).to_have_text(format_count(grown))
    assert "Δ Live" in page.locator("#table thead").inner_text()
    assert tile(page, "Live") == format_bytes(after.live_bytes)
    page.get_by_role("button", name="Undo reset").click()
    expect(page.locator("#table tbody td").nth(4)).to_have_text(
        format_count(after.size_classes[0].allocations)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_shown_can_be_saved(serve_machine: Serve, open_page: Open, kind: str) -> None:
    machine = Machine(time_s=30)
    page = open_page(serve_machine(machine).url)
    sort_by_size(page)
    process = machine.poll()[0]
    thread = next(t for t in process.threads if t.name == "worker-1")
    page.get_by_label("Thread").select_option(str(thread.tid))
    expect(page.locator("#table tbody td").nth(4)).to_have_text(
        format_count(thread.size_classes[0].allocations)
    )
    page.get_by_text("Save", exact=True).click()
    with page.expect_download() as downloading:
        page.locator(f"[data-kind='{kind}']").click()
    assert downloading.value.suggested_filename == f"heapsmith-python3-4711-{kind}"
    content = downloading.value.path().read_bytes()
    if kind == "all.json":
        document = json.loads(content)
        assert document["schema"] == "heapsmith.view/1"
        assert document["thread"] == f"worker-1 · {thread.tid}"
        assert document["process"]["live_bytes"] == process.live_bytes
        assert document["curve"]["live_bytes"][-1] == process.live_bytes
        return
    frame = (pl.read_csv if kind.endswith("csv") else pl.read_parquet)(io.BytesIO(content))
    if kind.startswith("table"):
        assert frame["tid"].unique().to_list() == [thread.tid]
        assert frame["live_bytes"].to_list() == [row.live_bytes for row in thread.size_classes]
    else:
        assert frame["live_bytes"][-1] == process.live_bytes


def test_the_update_interval_can_be_changed_and_survives_a_reload(
    serve_machine: Serve, open_page: Open
) -> None:
    machine = Machine(time_s=30)
    page = open_page(serve_machine(machine).url)
    page.get_by_label("Update interval").select_option("2")
    wait_until(lambda: link(page, "number") == link(page, "seen"), "the page has caught up")
    time.sleep(0.5)
    before = link(page, "number")
    time.sleep(3)
    assert isinstance(before, int)
    assert before < int(str(link(page, "number"))) <= before + 2
    page.reload()
    page.wait_for_selector("body:not(.loading)")
    assert page.get_by_label("Update interval").input_value() == "2"


def test_pause_holds_the_picture_while_the_history_goes_on(serve_machine: Serve, open_page: Open) -> None:
    machine = Machine(time_s=30)
    page = open_page(serve_machine(machine).url)
    held = tile(page, "Live")
    page.get_by_role("button", name="Pause").click()
    wait_until(lambda: link(page, "number") == link(page, "seen"), "the page has caught up")
    machine.time_s = 44
    polls = machine.polls
    wait_until(lambda: machine.polls > polls + 3, "polling goes on")
    assert tile(page, "Live") == held
    page.get_by_role("button", name="Resume").click()
    expect(page.locator(".tile[data-name='Live'] strong")).to_have_text(
        format_bytes(machine.poll()[0].live_bytes)
    )


@pytest.mark.parametrize(
    ("ended", "words"),
    [
        (Exit(0, None, False), "exited with 0"),
        (Exit(3, None, False), "exited with 3"),
        (Exit(None, 11, False), "killed by SIGSEGV"),
        (Exit(None, 9, True), "killed by the kernel: out of memory"),
    ],
)
def test_the_page_stays_after_the_end_and_says_how_it_came(
    serve_machine: Serve, open_page: Open, ended: Exit, words: str
) -> None:
    machine = Machine(time_s=30)
    page = open_page(serve_machine(machine).url)
    expect(page.locator("#state")).to_have_text("running")
    machine.time_s = 33
    last = machine.poll()[0]
    machine.end(4711, ended)
    expect(page.locator("#state")).to_have_text(words)
    expect(page.locator("#ended")).to_contain_text(words)
    assert tile(page, "Live") == format_bytes(last.live_bytes)
    assert page.locator("#table tbody tr").count() > 5
    assert page.get_by_role("button", name="Set the limit").count() == 0


def test_limit_and_warning_threshold_are_set_from_the_page(serve_machine: Serve, open_page: Open) -> None:
    machine = Machine(time_s=30)
    page = open_page(serve_machine(machine).url)
    page.get_by_role("button", name="Set the limit").click()
    page.get_by_role("textbox", name="Limit").fill("2GiB")
    page.get_by_label("Warn at").fill("1.5GiB")
    page.get_by_role("button", name="Apply").click()
    expect(page.locator(".tile[data-name='Limit'] strong")).to_have_text("2.00 GiB")
    wait_until(lambda: machine.poll()[0].warn_at_bytes == 1536 * MiB, "the threshold is set")
    page.get_by_role("button", name="Set the limit").click()
    page.get_by_role("textbox", name="Limit").fill("much")
    page.get_by_role("button", name="Apply").click()
    expect(page.locator("#toast")).to_contain_text("'much' is not a number of bytes")
    assert machine.poll()[0].limit_bytes == 2048 * MiB
    page.get_by_role("button", name="Set the limit").click()
    page.get_by_role("textbox", name="Limit").fill("")
    page.get_by_role("button", name="Apply").click()
    expect(page.locator(".tile[data-name='Limit'] strong")).to_have_text("none")


def test_processes_are_a_tree_to_choose_from(serve_machine: Serve, open_page: Open) -> None:
    machine = Machine(believable.server_and_workers(3), time_s=30)
    page = open_page(serve_machine(machine).url)
    entries = page.locator("#processes .list button")
    expect(entries).to_have_count(4)
    expect(page.locator("#name")).to_have_text("gunicorn")
    entries.nth(2).click()
    expect(page.locator("#pid")).to_have_text("pid 4801")
    worker = next(p for p in machine.poll() if p.pid == 4801)
    expect(page.locator(".tile[data-name='Live'] strong")).to_have_text(format_bytes(worker.live_bytes))
    page.reload()
    page.wait_for_selector("body:not(.loading)")
    expect(page.locator("#pid")).to_have_text("pid 4801")


def test_without_a_process_the_page_says_what_to_do_and_one_appears_by_itself(
    serve_machine: Serve, open_page: Open
) -> None:
    machine = Machine([], time_s=30)
    page = open_page(serve_machine(machine).url)
    expect(page.locator("#waiting")).to_contain_text("heapsmith run --live -- COMMAND")
    machine.processes.append({})
    expect(page.locator("#name")).to_have_text("python3")
    expect(page.locator("#table tbody tr").first).to_be_visible()


def test_rows_can_be_sorted_by_any_column(serve_machine: Serve, open_page: Open) -> None:
    machine = Machine(time_s=30)
    page = open_page(serve_machine(machine).url)
    rows = machine.poll()[0].size_classes
    page.locator("#table thead button", has_text="Allocations").click()
    most = max(rows, key=lambda row: row.allocations)
    expect(page.locator("#table tbody td").first).to_have_text(class_label(most.class_bytes))
    page.locator("#table thead button", has_text="Allocations").click()
    least = min(rows, key=lambda row: row.allocations)
    expect(page.locator("#table tbody td").first).to_have_text(class_label(least.class_bytes))


def test_warnings_and_failures_are_listed_and_marked(serve_machine: Serve, open_page: Open) -> None:
    machine = Machine([{"failures": 2, "limit_bytes": 700 * MiB, "warn_at_bytes": 300 * MiB}], time_s=30)
    page = open_page(serve_machine(machine).url)
    expect(page.locator("#events li")).to_have_count(2)
    expect(page.locator("#events")).to_contain_text("refused: over the limit")
    assert tile(page, "Failures") == "2"


def test_light_and_dark_follow_the_system_and_can_be_switched(serve_machine: Serve, open_page: Open) -> None:
    url = serve_machine(Machine(time_s=30)).url
    page = open_page(url, dark=True)

    def label_color() -> object:
        return page.evaluate(
            """[...Bokeh.documents[0]._all_models.values()]
            .find((model) => model.type === "LinearAxis").major_label_text_color"""
        )

    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    dark = label_color()
    page.get_by_label("Switch between light and dark").click()
    assert page.evaluate("document.documentElement.dataset.theme") == "light"
    assert label_color() != dark
    page.reload()
    page.wait_for_selector("body:not(.loading)")
    assert page.evaluate("document.documentElement.dataset.theme") == "light"


@pytest.mark.parametrize(("width", "height"), [(390, 844), (768, 1024), (1280, 800)])
def test_nothing_sticks_out_at_any_width(
    serve_machine: Serve, open_page: Open, width: int, height: int
) -> None:
    machine = Machine(
        [
            {"failures": 2, "limit_bytes": 700 * MiB, "warn_at_bytes": 300 * MiB},
            *believable.server_and_workers(2)[1:],
        ],
        time_s=30,
    )
    page = open_page(serve_machine(machine).url, width=width, height=height)
    expect(page.locator("#table tbody tr").first).to_be_visible()
    page.wait_for_timeout(500)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_browser_that_hangs_is_sent_no_backlog_and_delays_nobody(
    serve_machine: Serve, open_page: Open
) -> None:
    machine = Machine(time_s=30)
    url = serve_machine(machine).url
    slow, quick = open_page(url), open_page(url)
    page_number = link(slow, "number")
    slow.evaluate("setTimeout(() => { const end = Date.now() + 4000; while (Date.now() < end); }, 50)")
    time.sleep(0.3)
    polls, shown = machine.polls, link(quick, "number")
    time.sleep(3)
    assert machine.polls >= polls + 8
    assert int(str(link(quick, "number"))) >= int(str(shown)) + 6
    assert int(str(link(slow, "number"))) <= int(str(page_number)) + 6
    machine.time_s = 50
    expect(slow.locator(".tile[data-name='Live'] strong")).to_have_text(
        format_bytes(machine.poll()[0].live_bytes)
    )


def test_a_browser_that_goes_away_leaves_nothing_behind(serve_machine: Serve, open_page: Open) -> None:
    machine = Machine(time_s=30)
    url = serve_machine(machine).url
    open_page(url).close()
    polls = machine.polls
    wait_until(lambda: machine.polls > polls + 3, "polling goes on")
    expect(open_page(url).locator("#name")).to_have_text("python3")


def test_when_the_server_is_gone_the_page_says_so_and_comes_back_with_it(open_page: Open) -> None:
    machine = Machine(time_s=30)
    server = serve(machine, "127.0.0.1", 0, on_ready=lambda _: None, interval_s=0.25)
    page = open_page(server.url, expect_errors=True)
    server.stop()
    expect(page.locator("#problem")).to_contain_text("connection to heapsmith is lost")
    assert page.locator("#table tbody tr").count() > 5
    again = serve(machine, "127.0.0.1", server.port, on_ready=lambda _: None, interval_s=0.25)
    assert again.note == ""
    expect(page.locator("#problem")).to_be_hidden()
    expect(page.locator("#name")).to_have_text("python3")
    again.stop()


def test_a_failing_poll_is_shown_and_polling_goes_on(serve_machine: Serve, open_page: Open) -> None:
    machine = Machine(time_s=30)
    page = open_page(serve_machine(machine).url)
    good = machine.poll

    def fail() -> list[object]:
        raise RunError("the run directory is gone")

    machine.poll = fail  # type: ignore[method-assign, assignment]
    expect(page.locator("#problem")).to_contain_text("the run directory is gone")
    machine.poll = good  # type: ignore[method-assign]
    expect(page.locator("#problem")).to_be_hidden()


def test_the_browser_writes_numbers_as_python_does(serve_machine: Serve, open_page: Open) -> None:
    page = open_page(serve_machine(Machine(time_s=30)).url)
    values = [
        *range(0, 5000, 7),
        *(3**power for power in range(40)),
        *(2**power * 9 // 8 for power in range(50)),
    ]
    script = "(values) => { %s return values.map(bytes); }" % NUMBERS_JS  # noqa: UP031 (braces of another language)
    assert page.evaluate(script, values) == [format_bytes(value) for value in values]


def ask(port: int, path: str = "/", **headers: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path, headers=headers)
    status = connection.getresponse().status
    connection.close()
    return status


def test_only_our_own_names_and_origins_are_let_in(serve_machine: Serve) -> None:
    server = serve_machine(Machine(time_s=30))
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Protocol": "bokeh, token",
    }
    assert ask(server.port) == 200
    assert ask(server.port, Host=f"localhost:{server.port}") == 200
    assert ask(server.port, Host=f"attacker.example:{server.port}") == 403
    assert ask(server.port, Origin="http://attacker.example") == 403
    assert ask(server.port, "/ws", **upgrade, Origin="http://attacker.example") == 403


def test_names_of_this_machine_are_accepted_where_it_serves_on_both_loopbacks() -> None:
    server = serve(Machine(), "localhost", 0, on_ready=lambda _: None)
    try:
        assert ask(server.port) == 200
        assert ask(server.port, Host=f"[::1]:{server.port}") == 200
        assert ask(server.port, Host=f"attacker.example:{server.port}") == 403
        assert (
            ask(server.port, "/ws", Host=f"localhost:{server.port}", Origin="http://attacker.example") == 403
        )
    finally:
        server.stop()


def test_a_port_in_use_gives_the_next_free_one_and_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        addresses: list[str] = []
        server = serve(Machine(), "127.0.0.1", port, on_ready=addresses.append)
        try:
            assert server.port > port
            assert addresses == [f"http://127.0.0.1:{server.port}/"]
            assert server.note == f"port {port} is in use, so the page is on port {server.port}"
        finally:
            server.stop()


@pytest.mark.parametrize("host", ["203.0.113.7", "no.such.host.invalid"])
def test_an_address_that_is_not_ours_is_one_clear_error(host: str) -> None:
    with pytest.raises(RunError, match="cannot serve the page"):
        serve(Machine(), host, 0, on_ready=lambda _: None)


@pytest.mark.parametrize(
    ("port", "interval_s"), [(-1, 1.0), (65536, 1.0), (0, 0.0), (0, 3600.0), (0, float("nan"))]
)
def test_a_port_or_an_interval_that_cannot_be_is_refused(port: int, interval_s: float) -> None:
    with pytest.raises(HeapsmithError):
        serve(Machine(), "127.0.0.1", port, on_ready=lambda _: None, interval_s=interval_s)
