"""Cache: the folder for what is downloaded or built once, and locks between processes that want the same thing."""

import fcntl
import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

_LOOK_S = 0.05


def cache_folder() -> Path:
    """``PAVANE_CACHE``, else ``~/.cache/pavane``. It may be deleted whenever nothing runs out of it."""
    named = os.environ.get("PAVANE_CACHE", "").strip()
    return Path(named).expanduser().absolute() if named else Path.home() / ".cache" / "pavane"


@contextmanager
def locked(path: Path, *, timeout_s: float) -> Generator[None]:
    """Hold the lock that is this file, alone among all processes and threads, until the block is left.

    It ends with its holder, however that dies. Raises :class:`TimeoutError` where somebody else keeps it so long.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    give_up = time.monotonic() + timeout_s
    with path.open("a") as lock:  # closed on exec: a server that is started inside does not inherit it
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > give_up:
                    raise TimeoutError(f"another process has held {path} for {timeout_s:.0f} s") from None
                time.sleep(_LOOK_S)
        yield
