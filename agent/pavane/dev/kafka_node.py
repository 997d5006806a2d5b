"""One node of a Kafka cluster on this machine: broker and controller in one Java process."""

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from pavane.dev.java import Java
from pavane.dev.kafka_config import Layout, Wanted, logging_text, properties_text, server_properties
from pavane.dev.kafka_jars import KafkaFailed, class_archive, java_command
from pavane.dev.kafka_log import last_words
from pavane.dev.ports import HOST
from pavane.dev.process import DetachedProcess

START_S = 90.0
_STOP_S = 30.0
_KILL_S = 10.0
_LOOK_S = 0.05
_FORMAT_S = 60.0
_LAST_BYTES = 100_000
_MOST_LOG_BYTES = 10_000_000
_STARTED = b"Kafka Server started"


class KafkaNode:
    """Node ``number`` (from 1) with a folder of its own. Made by its cluster.

    Threads: calls for different nodes may run at once; for one node, :meth:`suspend`, :meth:`resume` and :meth:`kill`
    at any time.
    """

    def __init__(self, number: int, folder: Path, layout: Layout, launch: Callable[["KafkaNode"], None]) -> None:
        self.number = number
        self.address = f"{HOST}:{layout.client_port(number)}"
        self.log = folder / "server.log"
        """Everything it said, over all its lives."""
        self.logs = folder / "log"
        """Where it keeps its topics: one folder per partition."""
        self._folder = folder
        self._config = folder / "server.properties"
        self._process = DetachedProcess(folder / "pid", str(self._config))
        self._launch = launch

    @property
    def pid(self) -> int | None:
        """Its process id; None where it does not run."""
        return self._process.pid

    def start(self, timeout_s: float = START_S) -> None:
        """Start it, and return when it serves. Nothing happens where it serves already. Raises :class:`KafkaFailed`."""
        self._launch(self)
        self.await_ready(time.monotonic() + timeout_s)

    def stop(self, timeout_s: float = _STOP_S) -> None:
        """Stop it gracefully (SIGTERM): its partitions move first. Killed after ``timeout_s``. Idempotent."""
        self.ask_to_stop()
        self.await_stop(timeout_s)

    def kill(self) -> None:
        """End it at once (SIGKILL), as a crash or a power cut of this process does. Idempotent."""
        self._process.signal(signal.SIGKILL)
        if not self._process.wait(_KILL_S):
            raise KafkaFailed(f"node {self.number} (process {self.pid}) did not die within {_KILL_S:.0f} s")

    def restart(self) -> None:
        """Stop it gracefully and start it again."""
        self.stop()
        self.start()

    def suspend(self) -> None:
        """Stop the clock for it (SIGSTOP): it holds its connections and answers nobody until :meth:`resume`."""
        self._process.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on (SIGCONT)."""
        self._process.signal(signal.SIGCONT)

    @property
    def has_vanished(self) -> bool:
        """Whether it has ended, and nobody stopped or killed it here."""
        return self._process.has_vanished

    def check(self) -> None:
        """Raise :class:`KafkaFailed`, with the end of its log, where it has vanished."""
        if self.has_vanished:
            raise KafkaFailed(f"node {self.number} has ended by itself; from {self.log}:\n{self._last_words()}")

    def ask_to_stop(self) -> None:
        """The beginning of :meth:`stop`; does not wait."""
        if self._process.signal(signal.SIGTERM):
            self.resume()

    def await_stop(self, timeout_s: float = _STOP_S) -> None:
        """The end of :meth:`stop`."""
        if not self._process.wait(timeout_s):
            self.kill()

    def launch(self, wanted: Wanted, java: Java, libs: Path, heap_mb: int) -> None:
        """Begin to start it where it does not run; does not wait. A new data folder is formatted first."""
        if self._process.pid is not None:
            self.resume()
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        self._config.write_text(properties_text(server_properties(wanted, self.number, self.logs)))
        logging = self._folder / "log4j2.properties"
        logging.write_text(logging_text())
        logged = f"-Dlog4j2.configurationFile={logging.as_uri()}"
        if not (self.logs / "meta.properties").exists():
            self._format(wanted, [*java_command(java, libs, tool=True), logged])
        if self.log.exists() and self.log.stat().st_size > _MOST_LOG_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
        command = [
            *java_command(java, libs, tool=False, archive=self._archiving(java)),
            f"-Xms{heap_mb}m",
            f"-Xmx{heap_mb}m",
            "-XX:+UseG1GC",
            "-XX:MaxGCPauseMillis=20",
            "-Djava.awt.headless=true",
            logged,
            "kafka.Kafka",
            str(self._config),
        ]
        self._process.start(command, self.log)

    def await_ready(self, give_up: float) -> None:
        """Wait until it serves. Raises :class:`KafkaFailed` where it ends before, or at the moment ``give_up``."""
        while _STARTED not in self._said():
            if self._process.pid is None:
                raise KafkaFailed(f"node {self.number} ended while it started; from {self.log}:\n{self._last_words()}")
            if time.monotonic() > give_up:
                raise KafkaFailed(f"node {self.number} does not get ready; from {self.log}:\n{self._last_words()}")
            time.sleep(_LOOK_S)

    def keep_archive(self, java: Java) -> None:
        """Share the class archive that it left at a clean stop, where there is none yet."""
        mine, shared = self._my_archive, class_archive(java)
        if mine.exists() and not shared.exists():
            mine.replace(shared)

    @property
    def _my_archive(self) -> Path:
        return self._folder / "classes.jsa"

    def _archiving(self, java: Java) -> str | None:
        """An option that makes one node write the archive at its end, until there is one: nodes share no half-written file."""
        if class_archive(java).exists() or self.number != 1:
            return None
        return f"-XX:ArchiveClassesAtExit={self._my_archive}"

    def _format(self, wanted: Wanted, java: list[str]) -> None:
        command = [*java, "kafka.tools.StorageTool", "format", "-t", wanted.cluster_id, "-c", str(self._config)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_FORMAT_S, check=False)
        if done.returncode != 0:
            raise KafkaFailed(f"node {self.number} could not prepare {self.logs}:\n{last_words(done.stdout + done.stderr)}")

    def _said(self, most: int = _MOST_LOG_BYTES, *, at_last: bool = False) -> bytes:
        """What it has said in this life, at first or at last."""
        try:
            with self.log.open("rb") as log:
                start = self._process.log_start
                log.seek(max(start, self.log.stat().st_size - most) if at_last else start)
                return log.read(most)
        except FileNotFoundError:  # it has not come to it yet
            return b""

    def _last_words(self) -> str:
        return last_words(self._said(_LAST_BYTES, at_last=True).decode(errors="replace"))
