"""The teaching allocator shown: pictures of its heap, a player, traces, verdicts and comparisons of policies."""
