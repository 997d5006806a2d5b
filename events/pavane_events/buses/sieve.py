"""Sieve: which keys a file cannot have, without asking it. A Bloom filter of three probes."""

from typing import Final

_FEWEST_BITS: Final = 1 << 16
_BITS_A_KEY: Final = 8
"""Of a key that is not there the sieve is then wrong once in some thirty times."""


class Sieve:
    """A set of keys that knows every key it was given, and now and then another. Keys do not go; a new sieve is begun.

    A byte a key, 8 KiB at least. By this process's hash of bytes: it is nothing to keep.
    """

    def __init__(self, keys: int) -> None:
        """For so many keys; with more it is wrong more often."""
        bits = _FEWEST_BITS
        while bits < keys * _BITS_A_KEY:
            bits *= 2
        self._mask = bits - 1
        self._bits = bytearray(bits // 8)
        self._left = bits // _BITS_A_KEY

    @property
    def is_full(self) -> bool:
        """Whether it was given as many keys as it is made for."""
        return self._left <= 0

    def add(self, key: bytes) -> None:
        """From now on it may have this key."""
        bits, mask = self._bits, self._mask
        place = hash(key) & _WHOLE
        step = (place >> 29) | 1
        is_new = False
        for _ in range(3):
            at = place & mask
            bit = 1 << (at & 7)
            if not bits[at >> 3] & bit:
                bits[at >> 3] |= bit
                is_new = True
            place += step
        if is_new:
            self._left -= 1

    def may_have(self, key: bytes) -> bool:
        """False only where it was never given this key."""
        bits, mask = self._bits, self._mask
        place = hash(key) & _WHOLE
        if not bits[(place & mask) >> 3] >> (place & 7) & 1:
            return False
        step = (place >> 29) | 1
        place += step
        if not bits[(place & mask) >> 3] >> (place & 7) & 1:
            return False
        place += step
        return bool(bits[(place & mask) >> 3] >> (place & 7) & 1)


_WHOLE: Final = (1 << 58) - 1
