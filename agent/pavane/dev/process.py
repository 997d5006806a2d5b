"""A process that outlives whoever started it, known by a file with its id, and never mistaken for another.

A process id alone proves nothing: it may have been given to somebody else since. Ours has the path of its own
configuration on its command line, and that is looked at before anything is signalled.
"""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

_LOOK_S = 0.02
_HAS_PROC = Path("/proc/self/cmdline").exists()
# The shell ends at once, so the process is nobody's child that must be waited for: whoever asks later is as good as
# the one who started it.
_LAUNCH = '"$@" >>"$0" 2>&1 </dev/null & echo $!'


class DetachedProcess:
    """The process that ``pid_file`` tells of; ``mark`` is what its command line, and no other's, contains."""

    def __init__(self, pid_file: Path, mark: str) -> None:
        self._pid_file = pid_file
        self._mark = mark

    @property
    def pid(self) -> int | None:
        """Its id while it lives, stopped by SIGSTOP or not, and until it has let go of ports and files; else None."""
        pid, _ = self._read()
        if pid is None or not exists(pid):
            return None
        said = command_line(pid)
        return pid if not said or self._mark in said else None  # one that is just dying has no command line any more

    @property
    def has_vanished(self) -> bool:
        """Whether it was started, and is gone, and nobody saw to its end with :meth:`wait`."""
        return self._pid_file.exists() and self.pid is None

    @property
    def log_start(self) -> int:
        """The offset in its log at which this run of it began."""
        return self._read()[1]

    def start(self, command: Sequence[str], log: Path) -> None:
        """Start it in a session of its own, its output at the end of ``log``. Ctrl-C in our terminal does not reach it."""
        assert any(self._mark in each for each in command), "the command could not be told from others"
        start = log.stat().st_size if log.exists() else 0
        launched = subprocess.run(
            ["/bin/sh", "-c", _LAUNCH, str(log), *command],
            stdout=subprocess.PIPE,
            text=True,
            cwd=log.parent,  # where a crashed Java leaves its report
            start_new_session=True,
            check=True,
        )
        temporary = self._pid_file.with_suffix(".partial")
        temporary.write_text(f"{int(launched.stdout)} {start}\n")
        temporary.replace(self._pid_file)

    def signal(self, number: signal.Signals) -> bool:
        """Send it a signal; False where it is not there any more."""
        pid = self.pid
        if pid is None:
            return False
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return False
        return True

    def wait(self, timeout_s: float) -> bool:
        """Wait until it is gone; False where it still lives at the end of that time."""
        give_up = time.monotonic() + timeout_s
        while self.pid is not None:
            if time.monotonic() > give_up:
                return False
            time.sleep(_LOOK_S)
        self._pid_file.unlink(missing_ok=True)
        return True

    def _read(self) -> tuple[int | None, int]:
        try:
            pid, start = self._pid_file.read_text().split()
            return int(pid), int(start)
        except (OSError, ValueError):  # no file, or one that a full disk left empty
            return None, 0


def exists(pid: int) -> bool:
    """Whether there is such a process of ours. A zombie is none: it holds nothing any more."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    if not _HAS_PROC:
        return not _ps(pid, "stat").startswith("Z")
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z" or len(os.listdir(f"/proc/{pid}/task")) > 1  # its first thread may be gone before the others
    except (FileNotFoundError, ProcessLookupError):
        return False


def command_line(pid: int) -> str:
    """The command line of a process; empty where it is gone or dying."""
    if not _HAS_PROC:
        return _ps(pid, "command")
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _ps(pid: int, column: str) -> str:
    done = subprocess.run(["ps", "-ww", "-o", f"{column}=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return done.stdout.strip()
