"""`heapsmith report`, `leaks` and `diff` tell what happened, in every format; bad input is refused in one line."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from telling_traces import CACHED_BYTES, LEAKED_BYTES, write_service
from told_lives import MadeProcess, make_random, write_made

from heapsmith.cli import main
from heapsmith.trace import open_trace
from heapsmith.trace.layout import CHUNK_HEADER


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_service(tmp_path_factory.mktemp("service") / "service.heap")


def run(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    code = main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


def test_the_text_names_peak_leak_spike_and_storm_with_file_and_line(
    service: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, "report", service)
    assert code == 0
    first_screen = "\n".join(out.splitlines()[:40])
    for words in (
        "The peak was", "load_all, app/batch.py:88", "remember, app/service.py:17 kept adding", "The peak was a spike",
        "were temporary", "join_lines, app/text.py:9", "known one-time caches",
    ):  # fmt: skip
        assert words in first_screen, words
    assert "worker (pid 4250)" in out


@pytest.mark.parametrize(
    ("still_us", "signal", "words"),
    [
        (0, None, "the program ended right then"),
        (3000, None, "then it only held it, for 3.00 ms"),
        (0, 15, "unless the program was about to end anyway"),
    ],
)
def test_what_was_added_to_until_the_end_is_told_apart_from_what_ran_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], still_us: int, signal: int | None, words: str
) -> None:
    made = MadeProcess()
    for _ in range(2000):
        made.allocate(1000)
    made.free(made.allocate(10), after_ns=1000 * still_us)
    code, out, _ = run(capsys, "report", write_made(tmp_path / "x.heap", [made], signal=signal))
    assert code == 0
    assert words in " ".join(out.split())


def test_json_is_the_contract(service: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "report", service, "--format", "json")
    document = json.loads(out)
    assert code == 0
    assert document["schema"] == "heapsmith.report/1"
    assert document["events"] == open_trace(service).events
    assert document["dropped_events"] == 0
    process = document["processes"][0]
    assert {
        "pid", "name", "duration_s", "allocations", "frees", "allocated_bytes", "live_bytes_peak", "live_bytes_peak_at_s",
        "live_bytes_at_exit", "temporary_allocations", "places",
    } <= process.keys()  # fmt: skip
    assert process["live_bytes_at_exit"] == LEAKED_BYTES + CACHED_BYTES
    leaked = next(place for place in process["places"] if place["stack"][0].startswith("remember"))
    assert leaked["stack"] == [
        "remember (/srv/app/service.py:17)", "handle (/srv/app/service.py:41)", "main (/srv/app/service.py:60)",
    ]  # fmt: skip
    assert (leaked["allocations"], leaked["allocated_bytes"], leaked["live_bytes_at_exit"]) == (
        2000,
        10**6,
        10**6,
    )
    assert sum(place["live_bytes_at_peak"] for place in process["places"]) == process["live_bytes_peak"]
    assert process["places_left_out"]["places"] == 0


def profile_message() -> Any:
    """The public profile.proto, as far as a profile uses it, known to the protobuf library."""
    file = descriptor_pb2.FileDescriptorProto(name="p.proto", package="p", syntax="proto3")
    kinds = {"i": 3, "s": 9, "u": 4, "b": 8}
    for name, fields in {
        "ValueType": "type:1i unit:2i",
        "Label": "key:1i str:2i num:3i",
        "Sample": "location_id:1U value:2I label:3*Label",
        "Mapping": "id:1u filename:5i has_functions:7b",
        "Line": "function_id:1u line:2i",
        "Location": "id:1u mapping_id:2u line:4*Line",
        "Function": "id:1u name:2i system_name:3i filename:4i",
        "Profile": "sample_type:1*ValueType sample:2*Sample mapping:3*Mapping location:4*Location function:5*Function "
        "string_table:6S time_nanos:9i duration_nanos:10i comment:13I default_sample_type:14i",
    }.items():
        message = file.message_type.add(name=name)
        for text in fields.split():
            field_name, _, rest = text.partition(":")
            number = int("".join(c for c in rest if c.isdigit()))
            kind = rest.lstrip("0123456789")
            field = message.field.add(name=field_name, number=number)
            if kind.startswith("*"):
                field.label, field.type, field.type_name = 3, 11, f".p.{kind[1:]}"
            else:
                field.label, field.type = (3 if kind.isupper() else 1), kinds[kind.lower()]
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("p.Profile"))()


def test_pprof_is_a_profile_that_the_protobuf_library_reads(
    service: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "x.pb.gz"
    assert run(capsys, "report", service, "-o", out)[0] == 0
    profile = profile_message()
    profile.ParseFromString(gzip.decompress(out.read_bytes()))
    text = profile.string_table
    assert text[0] == ""
    kinds = [(text[kind.type], text[kind.unit]) for kind in profile.sample_type]
    assert kinds[3] == ("inuse_space", "bytes")
    assert text[profile.default_sample_type] == "peak_space"
    functions = {function.id: function for function in profile.function}
    locations = {location.id: location for location in profile.location}
    totals: dict[str, int] = {}
    for sample in profile.sample:
        leaf = locations[sample.location_id[0]].line[0]
        name = f"{text[functions[leaf.function_id].name]}:{leaf.line}"
        totals[name] = totals.get(name, 0) + sample.value[3]
        labels = {text[label.key] for label in sample.label}
        assert labels == {"process", "pid"}
    assert totals["remember:17"] == LEAKED_BYTES


def test_speedscope_and_folded_stacks_hold_the_same_bytes(
    service: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "x.speedscope.json"
    assert run(capsys, "report", service, "-o", out)[0] == 0
    document = json.loads(out.read_text())
    assert document["$schema"] == "https://www.speedscope.app/file-format-schema.json"
    names = [frame["name"] for frame in document["shared"]["frames"]]
    for profile in document["profiles"]:
        assert profile["type"] == "sampled"
        assert len(profile["samples"]) == len(profile["weights"])
        assert sum(profile["weights"]) == profile["endValue"]
        assert all(0 <= frame < len(names) for sample in profile["samples"] for frame in sample)
    code, folded, _ = run(capsys, "report", service, "--format", "folded", "--measure", "leaks")
    assert code == 0
    lines = dict(line.rsplit(" ", 1) for line in folded.splitlines())
    at_exit = next(p for p in document["profiles"] if p["name"] == "still live at the end")
    assert sum(map(int, lines.values())) == at_exit["endValue"] == LEAKED_BYTES + CACHED_BYTES
    (leak,) = [line for line in lines if line.endswith("remember (/srv/app/service.py:17)")]
    assert leak.startswith("service (pid 4242);main")


def test_parquet_tables_hold_every_event_and_every_object(
    service: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(capsys, "report", service, "-o", tmp_path / "x.parquet")[0] == 0
    events, objects, stacks = (
        pl.read_parquet(tmp_path / f"x.{name}.parquet") for name in ("events", "objects", "stacks")
    )
    assert len(events) == open_trace(service).events
    live = objects.filter(pl.col("died_ns").is_null() & (pl.col("process") == 0))
    assert live["size_bytes"].sum() == LEAKED_BYTES + CACHED_BYTES
    by_stack = live.join(stacks, on=["file", "stack"]).group_by("frames").agg(pl.col("size_bytes").sum())
    frames = {row["frames"][0]: row["size_bytes"] for row in by_stack.to_dicts()}
    assert frames["remember (/srv/app/service.py:17)"] == LEAKED_BYTES
    assert run(capsys, "report", service, "-o", tmp_path / "x.parquet")[0] == 2  # they are there


@pytest.fixture(scope="module")
def tables(service: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    assert main(["report", str(service), "-o", str(folder / "service.parquet")]) == 0
    return folder


@pytest.mark.parametrize(
    "name",
    ["{}/service.parquet", "{}", "{}/*.parquet", "file://{}/", "file://{}", "{}/service.events.parquet"],
)
def test_parquet_files_are_read_as_the_trace_they_are_from(
    service: Path, tables: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    documents: list[dict[str, Any]] = []
    for source in (str(service), name.format(tables)):
        code, out, _ = run(capsys, "report", source, "--format", "json")
        assert code == 0
        documents.append(json.loads(out))
    of_trace, of_tables = documents
    for document in documents:
        document.pop("files")
        for process in document["processes"]:
            process.pop("file")
            process["places"].sort(key=lambda place: str(place))
    assert of_tables == of_trace


@pytest.fixture
def bucket(tables: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The tables on an object storage of this machine."""
    pytest.importorskip("moto.server", reason="there is no moto[server] to play an object storage")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    # A process of its own: Polars holds on to the interpreter while it waits.
    words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(600):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            break
        assert server.poll() is None
        time.sleep(0.05)
    for name in ("", *(f"runs/{path.name}" for path in tables.iterdir())):
        data = (tables / Path(name).name).read_bytes() if name else b""
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(len(data))}
        request = urllib.request.Request(f"{address}/fleet/{name}", data, headers, method="PUT")
        urllib.request.urlopen(request, timeout=20).close()
    for variable, value in {
        "AWS_ENDPOINT_URL": address, "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nothing",
    }.items():  # fmt: skip
        monkeypatch.setenv(variable, value)
    yield "s3://fleet"
    server.kill()
    server.wait()


def test_tables_on_an_object_storage_are_read(
    service: Path, bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("runs/service.parquet", "runs/", "runs", "runs/*.parquet"):
        code, out, _ = run(capsys, "report", f"{bucket}/{name}", "--format", "json")
        assert code == 0
        assert json.loads(out)["events"] == open_trace(service).events
    for name in ("runs/no.parquet", "empty/", "runs/service.heap"):
        code, out, err = run(capsys, "report", f"{bucket}/{name}")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert f"cannot read {bucket}" in err


def test_a_fleet_of_tables_and_traces_makes_one_report_and_other_verbs_read_them_too(
    service: Path, tables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, "report", service, service.with_name("service.heap"), "-o", tmp_path / "two.parquet")
    events = open_trace(service).events
    _, out, _ = run(capsys, "report", tables, tmp_path, service, "--format", "json")
    assert json.loads(out)["events"] == 3 * events
    assert run(capsys, "leaks", tables, "--fail-above", "1KiB")[0] == 1
    code, out, _ = run(capsys, "diff", service, tables, "--json")
    assert code == 0
    assert json.loads(out)["places"] == []


def test_tables_that_are_damaged_or_missing_are_refused_in_one_line(
    tables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for missing in ("stacks", "processes"):
        broken = tmp_path / missing
        shutil.copytree(tables, broken)
        (broken / f"service.{missing}.parquet").write_bytes(b"PAR1 and nothing else")
        code, out, err = run(capsys, "report", broken / "service.parquet")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "cannot read" in err
    code, _, err = run(capsys, "report", tmp_path / "no.parquet")
    assert (code, err.count("\n")) == (2, 1)


def test_leaks_tells_caches_apart_and_fails_above_a_threshold(
    service: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, "leaks", service, "--fail-above", "900KiB")
    assert code == 1
    assert "remember, app/service.py:17" in out
    assert "import system" in out
    assert run(capsys, "leaks", service, "--fail-above", "1MiB")[0] == 0
    document = json.loads(run(capsys, "leaks", service, "--json")[1])
    assert document["remaining_bytes"] == LEAKED_BYTES
    assert document["caches"] == [
        {"name": "import system", "live_bytes_at_exit": CACHED_BYTES, "live_blocks_at_exit": 50}
    ]
    document = json.loads(run(capsys, "leaks", service, "--json", "--ignore", r"remember .*:17")[1])
    assert document["remaining_bytes"] == 0
    assert document["ignored"][0]["live_bytes_at_exit"] == LEAKED_BYTES
    code, out, _ = run(capsys, "leaks", service, "--format", "leaks.txt")
    assert "Potential memory leak : sizeclass=520 count=2000\n" in out
    rules = tmp_path / "rules.toml"
    rules.write_text('[[rule]]\nname = "session cache"\nfunction = "^remember$"\n')
    document = json.loads(run(capsys, "leaks", service, "--json", "--rules", rules)[1])
    # The frame is the program's own code: only --ignore sets that aside.
    assert document["remaining_bytes"] == LEAKED_BYTES
    assert run(capsys, "leaks", service, "--ignore", "(")[0] == 2
    rules.write_text("[[rule]]\nname = 1\n")
    code, _, err = run(capsys, "leaks", service, "--rules", rules)
    assert (code, err.count("\n")) == (2, 1)


def test_diff_names_what_grew_and_fails_above_a_threshold(
    service: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    worse = write_service(tmp_path / "worse.heap", leak_bytes=1500, spike_blocks=4)
    code, out, _ = run(capsys, "diff", service, worse, "--fail-above", "1MiB")
    assert code == 1
    assert "remember, app/service.py:17 grew most at the end, by 1.91 MiB" in out
    assert "load_all, app/batch.py:88 shrank most at the peak, by 20.0 MiB" in out
    assert run(capsys, "diff", service, worse, "--fail-above", "2MiB")[0] == 0
    document = json.loads(run(capsys, "diff", service, worse, "--format", "json")[1])
    assert document["schema"] == "heapsmith.diff/1"
    assert document["total"]["live_bytes_at_exit"]["difference"] == 2000 * 1000
    assert run(capsys, "diff", service, worse, "-o", tmp_path / "d.html")[0] == 0
    assert "remember, app/service.py:17" in (tmp_path / "d.html").read_text()
    code, out, _ = run(capsys, "diff", service, service, "--fail-above", "0")
    assert code == 0
    assert "The peak stayed at" in out


def test_diff_shows_the_line_of_a_place_that_holds_most(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [tmp_path / "old.heap", tmp_path / "new.heap"]
    for path, blocks in zip(paths, (1, 5000), strict=True):
        code = f"a = []\nfor i in range({blocks}): a.append(bytes(1000))\nb = [bytes(1)]\nc = bytes(900)\n"
        script = tmp_path / "grows.py"
        script.write_text(code)
        words = [sys.executable, "-m", "heapsmith", "record", "-o", str(path), "--stacks", "all"]
        subprocess.run(
            [*words, "--", sys.executable, "-I", "-S", str(script)], check=True, capture_output=True
        )
    _, out, _ = run(capsys, "diff", *paths)
    assert "grows.py:2 grew most at the peak" in out


def test_several_files_a_folder_and_a_pattern_make_one_report(
    service: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.heap", "b.heap"):
        shutil.copy(service, tmp_path / name)
    for words in ([tmp_path], [tmp_path / "*.heap"], [tmp_path / "a.heap", tmp_path / "b.heap"]):
        document = json.loads(run(capsys, "report", *words, "--json")[1])
        assert len(document["processes"]) == 4
        assert document["events"] == 2 * open_trace(service).events
    assert run(capsys, "report", tmp_path, "-o", tmp_path / "fleet.html")[0] == 0


def test_what_cannot_be_done_is_said_in_one_line(
    service: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = tmp_path / "taken.html"
    taken.write_text("mine")
    text = tmp_path / "notes.txt"
    text.write_text("hello")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    cut = tmp_path / "cut"
    cut.write_bytes(service.read_bytes()[:-3000])
    for words in (
        ["report"],
        ["report", tmp_path / "none.heap"],
        ["report", text],
        ["report", pipe],
        ["report", ""],
        ["report", service, "--measure", "leaks"],
        ["report", service, "--rules", tmp_path / "none.toml"],
        ["report", tmp_path / "*.heap"],
        ["report", tmp_path],
        ["report", service, "-o", taken],
        ["report", service, "-o", tmp_path / "no" / "folder.html"],
        ["report", service, "-o", tmp_path / "x.docx"],
        ["report", service, "--format", "pdf"],
        ["report", service, "--symbols", tmp_path / "none"],
        ["leaks", service, "--fail-above", "many"],
        ["leaks", cut, "--fail-above", "1TiB"],
        ["diff", service, cut, "--fail-above", "1TiB"],
        ["diff", service],
        ["diff", service, text],
    ):
        code, out, err = run(capsys, *words)
        assert (code, out, err.count("\n")) == (2, "", 1), words
    assert taken.read_text() == "mine"
    assert run(capsys, "report", service, "-o", taken, "--force")[0] == 0
    assert taken.read_text() != "mine"


@pytest.mark.parametrize("ending", [".html", ".parquet"])
def test_a_report_that_does_not_fit_leaves_nothing_behind(service: Path, tmp_path: Path, ending: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "heapsmith", "report", str(service), "-o", str(tmp_path / f"x{ending}")],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
    )
    assert done.returncode == 2 and "cannot write" in done.stderr and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_drops_and_damage_are_shown_in_every_view(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_service(tmp_path / "x.heap", drops=7)
    assert "7 events were dropped" in run(capsys, "report", path)[1]
    cut = tmp_path / "cut.heap"
    cut.write_bytes(path.read_bytes()[:-3000])
    for verb in ("report", "leaks"):
        out = " ".join(run(capsys, verb, cut)[1].split())
        assert "is damaged at byte" in out
        assert "everything before is here" in out
    headless = tmp_path / "headless.heap"  # nothing but how it was made, and the process
    headless.write_bytes(path.read_bytes()[:1000])
    assert "Nothing was allocated" not in run(capsys, "report", headless)[1]
    document = json.loads(run(capsys, "report", cut, "--json")[1])
    assert document["complete"] is False
    assert any("damaged" in note for note in document["notes"])


def damaged_copies(data: bytes) -> list[bytes]:
    """Cut anywhere, bytes changed, chunks left out, chunks whose checks were made to fit."""
    import random
    import zlib

    chance = random.Random(11)
    copies = [data[: chance.randrange(len(data))] for _ in range(12)]
    for _ in range(25):
        changed = bytearray(data)
        for _ in range(chance.choice([1, 1, 8])):
            changed[chance.randrange(len(data))] ^= chance.randrange(1, 256)
        copies.append(bytes(changed))
    chunks, at = [], 16
    while at < len(data):
        size = 40 + int.from_bytes(data[at + 16 : at + 20], "little")
        chunks.append(data[at : at + size])
        at += size
    for _ in range(25):
        kept = list(chunks)
        place = chance.randrange(len(kept))
        if chance.random() < 0.4:
            del kept[place]
        else:
            # A byte of a payload, or of what the header says of it, with checksums that fit.
            chunk = bytearray(kept[place])
            spot = chance.choice([*range(8, 32), *range(40, len(chunk))]) if len(chunk) > 40 else 12
            chunk[spot] ^= 1 << chance.randrange(8)
            chunk[32:36] = zlib.crc32(chunk[40:]).to_bytes(4, "little")
            chunk[36:40] = zlib.crc32(chunk[:36]).to_bytes(4, "little")
            kept[place] = bytes(chunk)
        copies.append(data[:16] + b"".join(kept))
    assert CHUNK_HEADER.itemsize == 40
    return copies


def test_a_damaged_file_is_reported_as_far_as_it_goes_or_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = write_made(tmp_path / "whole.heap", [make_random(1), make_random(2, pid=8)], batch=60)
    damaged = tmp_path / "damaged.heap"
    refused = reported = 0
    for turn, data in enumerate(damaged_copies(whole.read_bytes())):
        damaged.write_bytes(data)
        views = (
            ["report", damaged],
            ["report", damaged, "-o", tmp_path / "x.html", "--force"],
            ["report", damaged, "--json"],
            ["report", damaged, "-o", tmp_path / "x.pb.gz", "--force"],
            ["report", damaged, "-o", tmp_path / "x.parquet", "--force"],
            ["leaks", damaged],
            ["diff", whole, damaged],
        )
        for words in (views[turn % len(views)], views[(turn + 3) % len(views)]):
            code, out, err = run(capsys, *words)
            if code == 2:
                refused += 1
                assert (out, err.count("\n")) == ("", 1), (words, err)
            else:
                reported += 1
                assert code == 0, words
    assert refused and reported
