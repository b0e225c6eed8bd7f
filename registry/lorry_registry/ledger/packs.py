"""Copies of many events of a history in one document, so that a long history takes few requests.

A pack holds the bytes of a hundred events, one a line: canonical JSON has no line breaks. The events
themselves stay where they are and are the truth. A pack may be missing, late or wrong; a reader of one
checks its events like any others, by the digests that link them to the head, and otherwise reads the events.
"""

from collections.abc import Iterable, Iterator

PACKED = 100
"""How many events a pack holds."""


def list_blocks(count: int) -> Iterator[range]:
    """Yield the numbers of the events of each pack that the first ``count`` events fill."""
    return (range(start, start + PACKED) for start in range(1, count - PACKED + 2, PACKED))


def pack_key(task: str, block: range) -> str:
    """Return the key of the pack that holds a block of a task's events."""
    return f"tasks/{task}/packs/{block[-1]:08d}.jsonl"


def pack_lines(documents: Iterable[bytes]) -> bytes:
    """Return the content of a pack of canonical documents."""
    return b"\n".join(documents)


def unpack_lines(content: bytes) -> list[bytes]:
    """Return the documents of a pack."""
    return content.split(b"\n")
