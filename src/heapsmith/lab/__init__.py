"""Measuring and judging allocators: the contract of malloc as checks, workloads, interleaved trials."""
