"""Measuring: contracts, workloads, interleaved trials, and the statistics that tell a difference from noise."""
