"""Identities: new ones that sort by time, and derived ones that are the same on every re-run."""

import os
import time
from collections.abc import Iterable
from hashlib import sha1
from typing import Final
from uuid import UUID

NAMESPACE: Final = UUID("8f2d9c1e-6b7a-5d43-9e0f-7061766e6521")
_NAMESPACE: Final = NAMESPACE.bytes
_VARIANT: Final = {f"{digit:x}": f"{digit & 0x3 | 0x8:x}" for digit in range(16)}


def uuid7(unix_ms: int | None = None) -> str:
    """A new UUIDv7 (RFC 9562): 48 bits of milliseconds, then random bits. Ids sort by the time they were made."""
    ms = time.time_ns() // 1_000_000 if unix_ms is None else unix_ms
    value = (ms & (1 << 48) - 1) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return _text(f"{value:032x}")


def derived(*parts: str) -> str:
    """A UUIDv5 (RFC 9562) of the parts: the same parts give the same id anywhere, at any time.

    Parts are joined by a byte that no name contains, so ``("a", "bc")`` and ``("ab", "c")`` differ.
    """
    h = sha1(_NAMESPACE + "\x1f".join(parts).encode(), usedforsecurity=False).hexdigest()
    return f"{h[:8]}-{h[8:12]}-5{h[13:16]}-{_VARIANT[h[16]]}{h[17:20]}-{h[20:32]}"


def output_id(saga: str, step: str, causes: Iterable[str], part: int) -> str:
    """The id of a step's output: a duplicate is recognisable anywhere (DESIGN, section 3)."""
    return derived("output", saga, step, *sorted(causes), str(part))


def idempotency_key(deployment: str, saga: str, step: str, causes: Iterable[str]) -> str:
    """The key of a step's effect: stable over every re-run, on any machine (DESIGN, section 2)."""
    return derived("effect", deployment, saga, step, *sorted(causes))


def _text(hexadecimal: str) -> str:
    h = hexadecimal
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"
