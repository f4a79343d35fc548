"""Measuring: contracts, workloads, interleaved trials, and statistics that tell a difference from noise."""
