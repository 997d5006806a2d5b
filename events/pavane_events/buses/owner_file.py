"""A file that says whether its process lives: the kernel lets go of its lock when the process dies, however it dies.

``flock`` belongs to the open file, not to the process, so this works between two buses of one process, too. A child
made by a bare ``fork`` shares the lock and keeps its parent's lanes until the lease runs out; ``exec`` closes it.
Where there is no ``flock`` (Windows), nobody is known to be dead, and lanes are taken over after the lease.
"""

import contextlib
import os
import sys
import uuid
from pathlib import Path


class OwnerFile:
    """The lock of one open bus, held until :meth:`close` or death."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        while True:
            self.id = uuid.uuid4().hex
            self._path = directory / self.id
            with contextlib.suppress(FileNotFoundError):  # another bus has just removed the empty directory: again
                directory.mkdir(exist_ok=True)
                self._descriptor = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
                if _lock(self._descriptor) and self.exists():
                    return
                os.close(self._descriptor)  # another bus took it for a dead one's in that moment: again

    def exists(self) -> bool:
        """Whether the file is still there. Without it others take this process for dead."""
        return os.fstat(self._descriptor).st_nlink > 0

    def close(self) -> None:
        """Let go of the lock and remove the file."""
        remove(self._directory, self.id)
        os.close(self._descriptor)
        with contextlib.suppress(OSError):
            self._directory.rmdir()


def is_dead(directory: Path, owner: str) -> bool:
    """Whether nobody holds the lock of an owner: its process is gone, or its file is."""
    try:
        descriptor = os.open(directory / owner, os.O_RDWR)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        return _lock(descriptor) and sys.platform != "win32"
    finally:
        os.close(descriptor)


def remove(directory: Path, owner: str) -> None:
    """Remove the file of an owner that is gone."""
    with contextlib.suppress(OSError):
        (directory / owner).unlink()


def strays(directory: Path, known: set[str]) -> list[str]:
    """Files that no owner in the bus file accounts for, and nobody holds: left by a death before it was entered."""
    try:
        names = os.listdir(directory)
    except OSError:
        return []
    return [name for name in names if name not in known and is_dead(directory, name)]


def _lock(descriptor: int) -> bool:
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
