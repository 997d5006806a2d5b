"""Which partition a key belongs to: Kafka's murmur2, so that Java, librdkafka (``murmur2_random``) and we agree."""

from functools import lru_cache
from struct import unpack_from
from typing import Final

from mypy_extensions import i64

_MASK: Final[i64] = 0xFFFFFFFF
_M: Final[i64] = 0x5BD1E995
_SEED: Final[i64] = 0x9747B28C


def murmur2(data: bytes) -> int:
    """The 32-bit hash of ``org.apache.kafka.common.utils.Utils.murmur2``, as an unsigned number."""
    length = len(data)
    mask, m, h = _MASK, _M, _SEED ^ length
    word: i64 = 0  # 64 bits are enough for each product's lower half, and no number is an object where this is compiled
    for word in unpack_from(f"<{length >> 2}I", data):
        k = word * m & mask
        k = (k ^ k >> 24) * m & mask
        h = h * m & mask ^ k
    tail = data[length & ~3 :]
    if tail:
        h = (h ^ int.from_bytes(tail, "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15


@lru_cache(maxsize=4096)
def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key among so many: ``toPositive(murmur2(key)) % partitions``, Java's default."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions
