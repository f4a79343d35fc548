"""Launching a program under a heap, the life of a region, live snapshots, limits; the only reader of ``/proc``."""
