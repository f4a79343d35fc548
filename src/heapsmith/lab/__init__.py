"""Measuring and judging: the contract of malloc, workloads, interleaved trials, statistics."""
