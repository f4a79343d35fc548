"""Every name of the malloc family is defined, none is forgotten, and nothing else is needed or touched."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from heapsmith.native import LIBRARIES, SOURCES, library
from watched import Watched, needs

MALLOC_FAMILY = re.compile(r"alloc|free|memalign|malloc|mallin|mallopt|usable")
"""How a name of the C library looks that could hand out or take back a block."""

NOT_OF_THE_FAMILY = {
    # They look at the heap or tune it, and pass no block on.
    *("malloc_info", "malloc_stats", "malloc_trim", "mallopt"),
    # They take back structures of their own through `free`, which is seen.
    *("freeaddrinfo", "freeifaddrs", "freelocale", "globfree", "globfree64", "if_freenameindex"),
    *("regfree", "wordfree", "xdr_free", "obstack_free", "obstack_alloc_failed_handler"),
    # Files, protection keys and options: other resources.
    *("fallocate", "fallocate64", "posix_fallocate", "posix_fallocate64", "pkey_alloc", "pkey_free"),
    "inet6_option_alloc",
}
"""Names of the C library that look like it, and why each is left alone. Those that begin with an underscore are the
library's own doors around whoever defines malloc (other allocators call them to reach it): they stay its own."""


def symbols(path: Path, *, defined: bool) -> Iterator[tuple[str, str]]:
    """The kind and name of each dynamic symbol."""
    needs("nm")
    listed = subprocess.run(["nm", "-D", str(path)], check=True, capture_output=True, text=True).stdout
    for line in listed.splitlines():
        *_, kind, name = line.split()
        if (kind in "Uwv") != defined:
            yield kind, name.split("@")[0]


def of_the_linker(name: str) -> Path:
    """The file that the dynamic linker would load for a library."""
    listed = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=False).stdout
    for line in listed.splitlines():
        if line.strip().startswith(name) and "x86-64" in line:
            return Path(line.rpartition("=> ")[2])
    pytest.skip(f"there is no {name} on this machine")


def declared(kind: str) -> set[str]:
    text = (SOURCES / "abi" / "functions.def").read_text()
    return set(re.findall(rf"^{kind}\((\w+)\)$", text, re.MULTILINE))


def test_no_function_of_the_c_library_that_hands_out_blocks_is_forgotten() -> None:
    of_libc = {
        name
        for kind, name in symbols(of_the_linker("libc.so.6"), defined=True)
        if kind in "TWi" and MALLOC_FAMILY.search(name) and not name.startswith("_")
    }
    assert {"malloc", "reallocarray", "pvalloc"} <= of_libc
    assert of_libc - NOT_OF_THE_FAMILY <= declared("HS_FUNCTION")


def test_no_operator_of_the_cpp_library_is_forgotten() -> None:
    of_libstdcpp = {
        name
        for _, name in symbols(of_the_linker("libstdc++.so.6"), defined=True)
        if re.match(r"_Z(nw|na|dl|da)", name)
    }
    assert len(of_libstdcpp) >= 20
    assert of_libstdcpp == declared("HS_OPERATOR")


def test_the_library_exports_what_is_declared_and_nothing_else() -> None:
    exported = {name for _, name in symbols(library("libheapsmith_watch.so"), defined=True)}
    door_of_forged_heaps = {"heapsmith_region"}  # found by name, and no part of what programs call
    assert (
        exported
        == declared("HS_FUNCTION")
        | declared("HS_OPERATOR")
        | declared("HS_STATISTICS")
        | door_of_forged_heaps
    )


def as_set(names: str) -> set[str]:
    return set(names.split())


ALLOWED = as_set("""
    __errno_location abort syscall secure_getenv getauxval getrlimit getrusage clock_gettime prctl fstat
    memcpy memmove memset memcmp stpcpy strcpy strlen strncmp strncpy strstr strchr strrchr
    dlsym dlopen dlclose dladdr dladdr1 dlerror dl_iterate_phdr _dl_find_object gnu_get_libc_version
    pthread_key_create pthread_setspecific __register_atfork pthread_atfork on_exit
""")
# hs_watch starts a thread to deliver on: where the program asks for it, outside of malloc.
ALLOWED |= as_set("""
    pthread_create pthread_self pthread_setname_np pthread_sigmask sigfillset pthread_attr_init
    pthread_attr_setdetachstate pthread_attr_setstacksize pthread_attr_destroy
""")
# Weak: of the compiler's start files, and of an interpreter where there is one.
ALLOWED |= as_set("""
    __cxa_finalize __gmon_start__ _ITM_deregisterTMCloneTable _ITM_registerTMCloneTable
    PyMem_GetAllocator PyMem_SetAllocator PyObject_GetArenaAllocator PyObject_SetArenaAllocator
    Py_Version _Py_MergeZeroLocalRefcount
""")


def test_the_library_needs_nothing_that_allocates() -> None:
    needed = {name for _, name in symbols(library("libheapsmith_watch.so"), defined=False)}
    assert needed <= ALLOWED


@pytest.mark.parametrize("path", sorted(LIBRARIES.glob("*.so")), ids=lambda path: path.name)
def test_no_shipped_library_needs_a_cpp_runtime(path: Path) -> None:
    needs("readelf")
    dynamic = subprocess.run(["readelf", "-dW", str(path)], check=True, capture_output=True, text=True).stdout
    assert set(re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic)) <= {
        "libc.so.6",
        "libm.so.6",
        "ld-linux-x86-64.so.2",
    }


def test_nothing_is_allocated_before_main(
    watch: Callable[..., Watched], compiled: Callable[..., Path]
) -> None:
    untouched = watch([compiled("calls.c"), "untouched"])
    assert untouched.code == 0
    assert untouched.first.allocations == 0
