"""Where a process's time goes: its stack, looked at every millisecond of processor time. Slows nothing down by much.

What is written in C counts as the Python function that called it.
"""

import json
import signal
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import cast

_EVERY_S = 0.001
_ROOTS = ("site-packages/", "/lib/python3.11/", "/events/", "/tracing/", "/saga/", "/agent/", "/services/")

Share = tuple[str, float, float]
"""A function, its own share of the samples, and its share with everything that it called."""


@contextmanager
def sampled(path: Path) -> Generator[None]:
    """Sample this thread while the block lasts, and write the shares of every function, the largest first."""
    own: Counter[CodeType] = Counter()
    whole: Counter[CodeType] = Counter()

    def look(number: int, frame: FrameType | None) -> None:
        if frame is None:
            return
        own[frame.f_code] += 1
        seen: set[CodeType] = set()
        while frame is not None:
            seen.add(frame.f_code)
            frame = frame.f_back
        whole.update(seen)

    signal.signal(signal.SIGPROF, look)
    signal.setitimer(signal.ITIMER_PROF, _EVERY_S, _EVERY_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        total = max(1, own.total())
        shares = [(_name(code), own[code] / total, count / total) for code, count in whole.most_common()]
        path.write_text(json.dumps(shares))


def read_shares(path: Path) -> list[Share]:
    """What :func:`sampled` wrote."""
    return [(name, own, whole) for name, own, whole in cast("list[Share]", json.loads(path.read_text()))]


def _name(code: CodeType) -> str:
    file = code.co_filename
    for root in _ROOTS:
        _, found, rest = file.rpartition(root)
        if found:
            return f"{rest}:{code.co_qualname}"
    return f"{file}:{code.co_qualname}"
