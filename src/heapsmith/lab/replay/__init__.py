"""Replaying a trace: the recorded calls, made again over any allocator, in a process of its own."""
