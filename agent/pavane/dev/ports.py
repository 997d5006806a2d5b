"""Ports of the loopback interface: which are taken, and which are free for a while."""

import random
import socket
from collections.abc import Iterable, Sequence

HOST = "127.0.0.1"
_LOWEST, _HIGHEST = 20_000, 32_000
"""Below the ports that systems hand out by themselves, so that no outgoing connection takes them meanwhile."""
_TRIES = 200


def taken(ports: Iterable[int]) -> Sequence[int]:
    """Those that some program listens on."""
    return [port for port in ports if not _is_free(port)]


def free_block(count: int) -> int:
    """The first of ``count`` neighbouring ports that nobody listens on now. Nobody is kept from taking them meanwhile."""
    chance = random.SystemRandom()  # a seed that tests share would make them meet
    for _ in range(_TRIES):
        first = chance.randrange(_LOWEST, _HIGHEST - count)
        if not taken(range(first, first + count)):
            return first
    raise OSError(f"no {count} neighbouring ports between {_LOWEST} and {_HIGHEST} are free")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: what is just closing is no hindrance
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True
