"""Which partition a key belongs to: Kafka's murmur2, so that Java, librdkafka (``murmur2_random``) and we agree."""

from functools import lru_cache
from struct import unpack_from

_MASK = 0xFFFFFFFF
_M = 0x5BD1E995


def murmur2(data: bytes) -> int:
    """The 32-bit hash of ``org.apache.kafka.common.utils.Utils.murmur2``, as an unsigned number."""
    length = len(data)
    h = 0x9747B28C ^ length
    whole = length & ~3
    for word in unpack_from(f"<{length >> 2}I", data):
        k = word * _M & _MASK
        k = (k ^ k >> 24) * _M & _MASK
        h = h * _M & _MASK ^ k
    tail = data[whole:]
    if tail:
        h = (h ^ int.from_bytes(tail, "little")) * _M & _MASK
    h = (h ^ h >> 13) * _M & _MASK
    return h ^ h >> 15


@lru_cache(maxsize=65536)
def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key among so many: ``toPositive(murmur2(key)) % partitions``, Java's default."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions
