"""Digests of a file's streams, to tell whether a copy holds the same packets.

Runs in the child process only.
"""

from __future__ import annotations

from av.packet import Packet
from av.stream import Stream
from blake3 import blake3


class Digests:
    """Digests of a file's streams, over their packets' bytes in order."""

    def __init__(self) -> None:
        self._pictures = blake3()
        self._sounds: dict[int, blake3] = {}

    def take(self, packet: Packet[Stream]) -> None:
        """The next packet, of the one picture stream or of a sound."""
        if packet.stream.type == "audio":
            self.take_sound(packet)
        else:
            self._pictures.update(memoryview(packet))

    def take_sound(self, packet: Packet[Stream]) -> None:
        """The same; pictures are passed over."""
        if packet.stream.type == "audio":
            self._sounds.setdefault(packet.stream_index, blake3()).update(memoryview(packet))

    def pictures(self) -> bytes:
        """Of the pictures."""
        return self._pictures.digest()

    def sounds(self) -> tuple[bytes, ...]:
        """Of each track that has any sound, in their order."""
        return tuple(found.digest() for _, found in sorted(self._sounds.items()))
