# ruff: noqa: E501 (a line of C that is replaced is quoted whole)
"""libosmem.so with one thing changed: what students get wrong, and what they may choose freely."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from heapsmith.native import SOURCES

SOURCE = SOURCES / "osmem" / "osmem.c"


@dataclass(frozen=True)
class Mutant:
    """A change of the source: each pair is a text that stands in it and what stands there instead."""

    name: str
    changes: tuple[tuple[str, str], ...]
    caught_by: str = ""
    saying: str = ""


def mutant(name: str, *changes: tuple[str, str], caught_by: str = "", saying: str = "") -> Mutant:
    return Mutant(name, changes, caught_by, saying)


ENTER_MALLOC = "void* payload = allocate(size, MMAP_THRESHOLD);\n  pthread_mutex_unlock(&lock);"

WRONG = [
    mutant(
        "first fit", ("(!best || b->size < best->size)", "!best"), caught_by="best-fit-takes-the-smallest"
    ),
    mutant(
        "worst fit",
        ("b->size < best->size", "b->size > best->size"),
        caught_by="best-fit-before-the-untouched-rest",
    ),
    mutant(
        "highest of equals",
        ("b->size < best->size", "b->size <= best->size"),
        caught_by="best-fit-takes-the-lowest-of-equals",
    ),
    mutant(
        "search stops at half the list",
        (
            "for (block* b = first; b; b = b->next)\n    if (b->status == FREE && b->size",
            "for (block* b = first; b && b != last; b = b->next)\n    if (b->status == FREE && b->size",
        ),
        caught_by="malloc-preallocates",
    ),
    mutant(
        "no split",
        ("if (b->size - payload_bytes < META + ALIGNMENT) return;", "if (b) return;"),
        caught_by="split-leaves-a-usable-block",
    ),
    mutant(
        "split only above META + 16",
        ("< META + ALIGNMENT) return", "< META + 2 * ALIGNMENT) return"),
        caught_by="split-at-the-smallest-rest",
    ),
    mutant(
        "split leaves empty blocks",
        ("< META + ALIGNMENT) return", "< META) return"),
        caught_by="no-split-at-the-end-of-the-heap",
    ),
    mutant(
        "no split on shrink",
        (
            "  size_t payload_bytes = align(bytes);\n  if (payload_bytes > b->size) {",
            "  size_t payload_bytes = align(bytes);\n  if (payload_bytes <= b->size) return payload_of(b);\n  {",
        ),
        caught_by="realloc-shrink-splits",
    ),
    mutant("no coalescing", ("  coalesce_all();\n", ""), caught_by="coalesce-two"),
    mutant(
        "coalesces only pairs",
        (
            "while (b->status == FREE && next_is_free_and_adjacent(b)) merge_next(b);\n}",
            "if (b->status == FREE && next_is_free_and_adjacent(b)) merge_next(b);\n}",
        ),
        caught_by="coalesce-in-any-order",
    ),
    mutant(
        "coalesces only when nothing fits",
        (
            "  coalesce_all();\n  block* b = find_best(payload_bytes);",
            "  block* b = find_best(payload_bytes);\n  if (!b) coalesce_all(), b = find_best(payload_bytes);",
        ),
        caught_by="coalesce-before-the-search",
    ),
    mutant(
        "merging forgets the header",
        ("b->size += META + b->next->size;", "b->size += b->next->size;"),
        caught_by="coalesce-two",
    ),
    mutant(
        "no preallocation",
        ("append(PREALLOCATION - META, FREE)", "append(payload_bytes, FREE)"),
        caught_by="malloc-preallocates",
    ),
    mutant(
        "preallocation without header",
        ("append(PREALLOCATION - META, FREE)", "append(PREALLOCATION, FREE)"),
        caught_by="malloc-preallocates",
    ),
    mutant(
        "low threshold",
        ("MMAP_THRESHOLD = 128 * 1024", "MMAP_THRESHOLD = 64 * 1024"),
        caught_by="malloc-threshold",
    ),
    mutant(
        "high threshold",
        ("MMAP_THRESHOLD = 128 * 1024", "MMAP_THRESHOLD = 129 * 1024"),
        caught_by="malloc-threshold",
    ),
    mutant(
        "calloc with malloc's threshold",
        ("allocate(bytes, PAGE)", "allocate(bytes, MMAP_THRESHOLD)"),
        caught_by="calloc-threshold",
    ),
    mutant(
        "calloc's threshold without header",
        ("allocate(bytes, PAGE)", "allocate(bytes, PAGE + META)"),
        caught_by="calloc-threshold",
    ),
    mutant(
        "realloc with calloc's threshold",
        ("void* fresh = allocate(bytes, MMAP_THRESHOLD);", "void* fresh = allocate(bytes, PAGE);"),
        caught_by="realloc-moves-when-it-must",
    ),
    mutant(
        "mmap rounded to pages",
        ("mmap(NULL, META + payload_bytes,", "mmap(NULL, (META + payload_bytes + 4095) & ~4095ul,"),
        caught_by="malloc-threshold",
    ),
    mutant(
        "always appends",
        ("last->status == FREE && last_is_at_break()", "0"),
        caught_by="expand-the-last-block",
    ),
    mutant(
        "grows by pages",
        (
            "size_t more = payload_bytes - last->size;",
            "size_t more = (payload_bytes - last->size + 4095) & ~4095ul;",
        ),
        caught_by="expand-the-last-block",
    ),
    mutant(
        "munmap before mmap",
        (
            "static void* move(block* b, size_t bytes) {\n",
            "static void* move(block* b, size_t bytes) {\n  if (b->status == MAPPED) { release(b); return allocate(bytes, MMAP_THRESHOLD); }\n",
        ),
        caught_by="realloc-of-a-mapping-moves",
    ),
    mutant(
        "mremap",
        ("#define _DEFAULT_SOURCE", "#define _GNU_SOURCE\n#define _DEFAULT_SOURCE"),
        (
            "static void* move(block* b, size_t bytes) {\n",
            "static void* move(block* b, size_t bytes) {\n  if (b->status == MAPPED && bytes > MMAP_THRESHOLD) { b = mremap(b, META + b->size, META + align(bytes), MREMAP_MAYMOVE); b->size = align(bytes); return payload_of(b); }\n",
        ),
        caught_by="realloc-of-a-mapping-moves",
        saying="forbidden system call mremap",
    ),
    mutant(
        "mapped block shrinks in place",
        (
            "  if (b->status == MAPPED ||",
            "  if (b->status == MAPPED && bytes <= b->size) return payload_of(b);\n  if (b->status == MAPPED ||",
        ),
        caught_by="realloc-of-a-mapping-moves",
    ),
    mutant(
        "never unmaps",
        ("else if (munmap(b, META + b->size) != 0)", "else if (0)"),
        caught_by="free-unmaps",
    ),
    mutant(
        "shrinks the heap",
        ("    b->status = FREE;\n", "    { b->status = FREE; if (b == last) sbrk(-8); }\n"),
        caught_by="free-never-shrinks-the-heap",
    ),
    mutant(
        "poisons in realloc",
        (
            "  release(b);\n  return fresh;",
            "  if (b->status != MAPPED) memset(payload_of(b), 0xDD, b->size);\n  release(b);\n  return fresh;",
        ),
        caught_by="realloc-leaves-the-old-payload-alone",
        saying="realloc wrote into the payload that it left behind",
    ),
    mutant(
        "links free blocks through their payload",
        ("    b->status = FREE;\n", "    { b->status = FREE; *(void **)payload_of(b) = (void *)last; }\n"),
        caught_by="realloc-leaves-the-old-payload-alone",
        saying="realloc wrote into the payload that it left behind",
    ),
    mutant(
        "realloc copies too little",
        ("b->size < bytes ? b->size : bytes);", "8);"),
        caught_by="realloc-moves-when-it-must",
        saying="realloc did not keep the content",
    ),
    mutant(
        "realloc never merges forward",
        ("    while (b->size < payload_bytes && next_is_free_and_adjacent(b)) merge_next(b);\n", ""),
        caught_by="realloc-merges-forward",
    ),
    mutant(
        "realloc merges all at once",
        (
            "while (b->size < payload_bytes && next_is_free_and_adjacent(b)) merge_next(b);\n    if",
            "while (next_is_free_and_adjacent(b)) merge_next(b);\n    if",
        ),
        (
            "    if (b->size < payload_bytes) return move(b, bytes);\n",
            "    return b->size < payload_bytes ? move(b, bytes) : payload_of(b);\n",
        ),
        caught_by="realloc-merges-one-at-a-time",
    ),
    mutant(
        "realloc merges only if it is enough",
        (
            "    while (b->size < payload_bytes && next_is_free_and_adjacent(b)) merge_next(b);\n",
            "    if (next_is_free_and_adjacent(b) && b->size + META + b->next->size >= payload_bytes) merge_next(b);\n",
        ),
        caught_by="realloc-stays-merged",
    ),
    mutant(
        "realloc moves the last block",
        ("if (b == last && last_is_at_break() && extend_last(payload_bytes)) return payload_of(b);", ""),
        caught_by="realloc-grows-the-last-block",
    ),
    mutant(
        "realloc grows a merged end",
        (
            "    if (b->size < payload_bytes) return move",
            "    if (b->size < payload_bytes && b == last && extend_last(payload_bytes)) return payload_of(b);\n    if (b->size < payload_bytes) return move",
        ),
        caught_by="realloc-does-not-grow-a-merged-end",
    ),
    mutant(
        "realloc always moves",
        (
            "  split(b, payload_bytes);\n  return payload_of(b);\n}\n\n/* ---- The four",
            "  return move(b, bytes);\n}\n\n/* ---- The four",
        ),
        caught_by="realloc-same-size",
    ),
    mutant(
        "realloc of a free block allocates",
        (
            "if (b->status == FREE) return NULL;\n",
            "if (b->status == FREE) return allocate(bytes, MMAP_THRESHOLD);\n",
        ),
        caught_by="realloc-of-a-freed-block",
    ),
    mutant(
        "realloc(p, 0) keeps",
        ("    release(block_of_caller(ptr));\n  else", "    payload = ptr;\n  else"),
        caught_by="realloc-to-nothing-is-free",
    ),
    mutant(
        "malloc(0) gives a block",
        ("if (bytes == 0) return NULL;", "if (bytes == 0) bytes = 1;"),
        caught_by="malloc-nothing",
    ),
    mutant(
        "calloc(0) gives a block",
        ("allocate(bytes, PAGE)", "allocate(bytes ? bytes : 1, PAGE)"),
        caught_by="calloc-nothing",
    ),
    mutant(
        "calloc does not zero",
        ("if (payload && block_of(payload)->status != MAPPED) memset(payload, 0, bytes);", ""),
        caught_by="calloc-zeroes-reused-memory",
        saying="calloc answered memory that is not all zero",
    ),
    mutant(
        "calloc zeroes too much",
        ("memset(payload, 0, bytes);", "memset(payload, 0, bytes + 64);"),
        caught_by="calloc-zeroes-reused-memory",
    ),
    mutant(
        "asks for the break each time",
        (
            "  void* old_break = sbrk((intptr_t)bytes);",
            "  syscall(12, 0);\n  void* old_break = sbrk((intptr_t)bytes);",
        ),
        caught_by="append-behind-a-used-block",
    ),
    mutant(
        "16-byte sizes",
        ("(bytes + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1)", "(bytes + 15) & ~(size_t)15"),
        caught_by="malloc-aligns",
    ),
    mutant(
        "4-byte sizes",
        ("(bytes + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1)", "(bytes + 3) & ~(size_t)3"),
        caught_by="malloc-aligns",
        saying="misaligned",
    ),
    mutant(
        "uses malloc in a constructor",
        (
            "static pthread_mutex_t lock",
            "__attribute__((constructor)) static void early(void) {\n  void *volatile p = malloc(10);\n  free(p);\n}\n\nstatic pthread_mutex_t lock",
        ),
        caught_by="malloc-preallocates",
    ),
    mutant(
        "crashes in calloc",
        (
            "  size_t bytes;\n  if (__builtin_mul",
            "  size_t bytes;\n  *(volatile int *)0 = 1;\n  if (__builtin_mul",
        ),
        caught_by="calloc-preallocates",
        saying="SIGSEGV in line",
    ),
    mutant(
        "hangs on free(NULL)",
        ("  if (!ptr) return;", "  while (!ptr) {\n  }"),
        caught_by="free-null",
        saying="out of time",
    ),
    mutant(
        "exits when a block is mapped",
        ("  if (b == MAP_FAILED) return NULL;", '  if (write(2, "not implemented\\n", 16)) exit(12);'),
        caught_by="malloc-threshold",
        saying="not implemented",
    ),
    mutant(
        "answers memory it does not have",
        (ENTER_MALLOC, "void* payload = size ? (void *)4096 : NULL;\n  pthread_mutex_unlock(&lock);"),
        caught_by="malloc-preallocates",
        saying="when the memory of",
    ),
    mutant(
        "hands out a block twice",
        ("  b->status = ALLOCATED;\n  split", "  split"),
        caught_by="malloc-preallocates-once",
        saying="overlap",
    ),
    mutant(
        "prints while it works",
        (
            ENTER_MALLOC,
            'void* payload = allocate(size, MMAP_THRESHOLD);\n  if (write(1, "x", 1) < 0) abort();\n  pthread_mutex_unlock(&lock);',
        ),
        caught_by="malloc-nothing",
        saying="forbidden system call write",
    ),
    mutant(
        "starts a process",
        (
            ENTER_MALLOC,
            "void* payload = allocate(size, MMAP_THRESHOLD);\n  if (fork() == 0) _exit(0);\n  pthread_mutex_unlock(&lock);",
        ),
        caught_by="malloc-nothing",
        saying="forbidden system call",
    ),
]

FREE_CHOICES = [
    mutant(
        "tries in place before it maps",
        ("    if (META + payload_bytes >= MMAP_THRESHOLD) return move(b, bytes);\n", ""),
        ("    if (b->size < payload_bytes) return move", "    if (b->size < payload_bytes || META + payload_bytes >= MMAP_THRESHOLD) return move"),
    ),
    mutant("other fields in the padding", ("  int status;\n", "  int status;\n  int canary;\n")),
    mutant(
        "raw brk with a cached top",
        ("static char* grow(size_t bytes) {\n  void* old_break = sbrk((intptr_t)bytes);\n", "static char* top;\nstatic char* grow(size_t bytes) {\n  if (!top) top = (char*)syscall(12, 0);\n  void* old_break = top;\n  top = (char*)syscall(12, top + bytes);\n"),
        ("end_of(last) == sbrk(0)", "end_of(last) == top"),
    ),
    mutant(
        "coalesces in free",
        ("    b->status = FREE;\n", "    { b->status = FREE; coalesce_all(); }\n"),
    ),
    mutant("threshold above, not from", ("META + payload_bytes >= limit_bytes", "META + payload_bytes > limit_bytes")),
    mutant(
        "threshold without header",
        ("META + payload_bytes >= limit_bytes", "(limit_bytes == PAGE ? META : 0) + payload_bytes >= limit_bytes"),
    ),
    mutant("poisons in free", ("  if (!ptr) return;", "  if (!ptr) return;\n  if (block_of(ptr)->status == ALLOCATED) memset(ptr, 0xDD, block_of(ptr)->size);")),
    mutant("other status numbers", ("enum status { FREE = 0, ALLOCATED = 1, MAPPED = 2 };", "enum status { FREE = 7, ALLOCATED = 9, MAPPED = 11 };")),
    mutant("no lock", ("pthread_mutex_lock(&lock);", ""), ("pthread_mutex_unlock(&lock);", ""), ("static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;", "")),
]  # fmt: skip


def build(one: Mutant, directory: Path, layout: int = 1) -> Path:
    """Compile a mutant; a text that no longer stands in the source is an error, not an unchanged library."""
    text = SOURCE.read_text()
    for old, new in one.changes:
        assert old in text, f"{one.name}: {old!r} is not in {SOURCE.name}"
        text = text.replace(old, new)
    return compile_c(
        text, directory / f"{one.name.replace(' ', '-').replace('/', '')}.so", f"-DOSMEM_LAYOUT={layout}"
    )


def compile_c(text: str, output: Path, *options: str) -> Path:
    command = [
        "cc",
        "-O1",
        "-w",
        "-fPIC",
        "-shared",
        f"-I{SOURCE.parent}",
        *options,
        "-x",
        "c",
        "-",
        "-o",
        str(output),
    ]
    subprocess.run(command, input=text, text=True, check=True)
    return output
