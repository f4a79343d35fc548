"""Other people's allocators: where they are, how a program is started on them, which knobs they have.

Facts only: one file per allocator in `peers.allocators`, found by `peers.register`. Adding an allocator is
adding a file.
"""
