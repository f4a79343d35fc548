"""Recorded events: the file, its batches, and what follows from them. Nothing is started here."""

from heapsmith.trace.batch import NO_OBJECT, UNKNOWN_OBJECT, EventBatch
from heapsmith.trace.layout import BORN, DIED, IS_BORN, IS_DIED, FrameKind, Operation, OperationFlag
from heapsmith.trace.reader import Damage, Trace, TraceProcess, open_trace
from heapsmith.trace.records import (
    Drops,
    End,
    FrameSymbols,
    Manifest,
    Mark,
    ModuleRecord,
    ProcessEnd,
    ProcessStart,
    Symbol,
    ThreadRecord,
)
from heapsmith.trace.writer import TraceWriter

__all__ = [
    "BORN",
    "DIED",
    "IS_BORN",
    "IS_DIED",
    "NO_OBJECT",
    "UNKNOWN_OBJECT",
    "Damage",
    "Drops",
    "End",
    "EventBatch",
    "FrameKind",
    "FrameSymbols",
    "Manifest",
    "Mark",
    "ModuleRecord",
    "Operation",
    "OperationFlag",
    "ProcessEnd",
    "ProcessStart",
    "Symbol",
    "ThreadRecord",
    "Trace",
    "TraceProcess",
    "TraceWriter",
    "open_trace",
]
