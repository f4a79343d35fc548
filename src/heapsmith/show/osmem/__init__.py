"""The teaching allocator shown: pictures of its heap, a player, traces, verdicts, policies compared."""
