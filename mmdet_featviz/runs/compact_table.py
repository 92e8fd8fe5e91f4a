"""Compact table: maps names to whole numbers in a few bytes per name, for what is counted over all images of a run."""

from __future__ import annotations

import hashlib
from array import array


class CompactTable:
    """Maps strings to whole numbers from 0 to 2^32 - 1, in at most 20 bytes per string.

    It is a hash table with 12 bytes per slot, of which at least three fifths are used. Instead of a string its 64-bit
    hash is kept: two of 10 million strings have the same one with a chance of 1 to 370,000.
    """

    def __init__(self) -> None:
        self._count = 0
        self._hashes, self._values = _slots(8)

    def __len__(self) -> int:
        return self._count

    def get(self, name: str, default: int = 0) -> int:
        """Return the number of a name."""
        slot = self._slot(hash64(name))
        return self._values[slot] if self._hashes[slot] else default

    def setdefault(self, name: str, value: int) -> int:
        """Return the number of a name, which becomes `value` if it has none."""
        slot = self._slot(hash64(name))
        if self._hashes[slot]:
            return self._values[slot]
        self._insert(hash64(name), value)
        return value

    def add(self, name: str, increase: int = 1) -> None:
        """Increase the number of a name, which begins at 0."""
        self._insert(hash64(name), self.get(name) + increase)

    def update(self, other: CompactTable) -> None:
        """Take over the names of another table with their numbers."""
        for hashed, value in zip(other._hashes, other._values):
            if hashed:
                self._insert(hashed, value)

    def _slot(self, hashed: int) -> int:
        """Return the slot of a hash, or the free slot where it belongs."""
        slot = hashed % len(self._hashes)
        while self._hashes[slot] not in (0, hashed):
            slot = (slot + 1) % len(self._hashes)
        return slot

    def _insert(self, hashed: int, value: int) -> None:
        slot = self._slot(hashed)
        self._count += not self._hashes[slot]
        self._hashes[slot], self._values[slot] = hashed, value
        if 4 * self._count > 3 * len(self._hashes):
            hashes, values = self._hashes, self._values
            self._hashes, self._values = _slots(5 * len(hashes) // 4)
            self._count = 0
            for old_hash, old_value in zip(hashes, values):
                if old_hash:
                    self._insert(old_hash, old_value)


def hash64(text: str) -> int:
    """Return a hash of a string, from 1 to 2^64 - 1."""
    digest = hashlib.blake2b(text.encode('utf-8', 'surrogatepass'), digest_size=8).digest()
    return int.from_bytes(digest, 'big') or 1


def _slots(count: int) -> tuple[array, array]:
    """Return free slots: 8 bytes for the hash and 4 for the number of each."""
    return array('Q', bytes(8 * count)), array('I', bytes(4 * count))
