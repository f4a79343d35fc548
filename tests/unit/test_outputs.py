"""Files that people asked for are there whole, or as they were before."""

import resource
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from heapsmith.errors import HeapsmithError
from heapsmith.outputs import write_output


def test_a_file_that_cannot_be_written_whole_is_left_as_it_was(tmp_path) -> None:
    path = tmp_path / "page.html"
    path.write_text("before")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(HeapsmithError, match=f"cannot write {path}: File too large"):
            write_output(path, "x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_a_replaced_file_keeps_its_rights_and_a_link_its_target(tmp_path) -> None:
    path, link = tmp_path / "private.json", tmp_path / "link.json"
    path.write_text("before")
    path.chmod(0o600)
    link.symlink_to(path)
    write_output(link, b"after")
    assert link.is_symlink() and path.read_text() == "after"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_device_is_written_to_as_it_is() -> None:
    with pytest.raises(HeapsmithError, match="cannot write /dev/full: No space left on device"):
        write_output(Path("/dev/full"), "x")


def test_standard_output_is_written_to_where_it_stands_even_if_it_is_a_file(tmp_path) -> None:
    script = "from pathlib import Path; from heapsmith.outputs import write_output; write_output(Path('/dev/stdout'), 'x')"
    with (tmp_path / "all.txt").open("wb") as file:
        subprocess.run([sys.executable, "-c", script], stdout=file, check=True)
    assert (tmp_path / "all.txt").read_text() == "x"
    assert [path.name for path in tmp_path.iterdir()] == ["all.txt"]
