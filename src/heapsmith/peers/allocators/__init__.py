"""One file per allocator, each with an ``ALLOCATOR`` (or ``ALLOCATORS``); `peers.register` finds them by being here."""
