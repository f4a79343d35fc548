"""One file per allocator, each with an ``ALLOCATOR`` or ``ALLOCATORS``, found by `peers.register`."""
