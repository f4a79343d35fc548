"""A heap at a moment, in figures: what is used, and what is lost to which kind of fragmentation."""

from __future__ import annotations

from dataclasses import dataclass

from heapsmith.osmem.blocks import Step


@dataclass(frozen=True, slots=True)
class Measures:
    """A heap in figures; all in bytes unless the name says otherwise.

    Attributes:
        committed_bytes: Heap and mappings, headers and free blocks included.
        metadata_bytes: All headers.
        requested_live_bytes: What the program asked for and has not given back.
        usable_live_bytes: The payloads of live blocks: what was asked for, and slack.
        free_bytes: The payloads of free blocks.
        largest_free_bytes: The largest request that needs no system call.
        live_blocks: On the heap and mapped.
        free_blocks: On the heap.
    """

    committed_bytes: int
    metadata_bytes: int
    requested_live_bytes: int
    usable_live_bytes: int
    free_bytes: int
    largest_free_bytes: int
    live_blocks: int
    free_blocks: int

    @property
    def internal_fragmentation_ratio(self) -> float:
        """Slack, as a share of the live payloads."""
        if not self.usable_live_bytes:
            return 0.0
        return (self.usable_live_bytes - self.requested_live_bytes) / self.usable_live_bytes

    @property
    def external_fragmentation_ratio(self) -> float:
        """Free memory, as a share of all that was obtained from the system."""
        return self.free_bytes / self.committed_bytes if self.committed_bytes else 0.0

    @property
    def scattered_ratio(self) -> float:
        """The share of the free memory that lies outside the largest free block."""
        return 1 - self.largest_free_bytes / self.free_bytes if self.free_bytes else 0.0


def measure(step: Step) -> Measures:
    """Compute the figures of the heap after a step.

    Example:
        >>> from heapsmith.osmem.model import Model
        >>> measures = measure(Model().malloc(1001))
        >>> measures.usable_live_bytes - measures.requested_live_bytes, measures.free_blocks
        (7, 1)
    """
    blocks = (*step.heap, *step.mappings)
    live = [block for block in blocks if block.status != "free"]
    free = [block.size_bytes for block in blocks if block.status == "free"]
    return Measures(
        committed_bytes=sum(block.total_bytes for block in blocks),
        metadata_bytes=sum(block.header_bytes for block in blocks),
        requested_live_bytes=sum(block.requested_bytes for block in live),
        usable_live_bytes=sum(block.size_bytes for block in live),
        free_bytes=sum(free),
        largest_free_bytes=max(free, default=0),
        live_blocks=len(live),
        free_blocks=len(free),
    )
