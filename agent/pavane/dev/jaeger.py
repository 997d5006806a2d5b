"""A real Jaeger on this machine's loopback interface, in memory, without Docker: for development and tests."""

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import NoReturn, Self
from urllib.error import URLError
from urllib.request import urlopen

from pavane.dev.jaeger_build import Progress, jaeger_binary
from pavane.dev.ports import HOST, free_block, taken
from pavane_events.errors import PavaneError

MOST_TRACES = 100_000
_READY_S = 60.0
_STOP_S = 10.0
_LOOK_S = 0.05


class JaegerFailed(PavaneError):
    """Jaeger did not start. The message ends with the last lines of its log."""

    code = "jaeger.failed"


@dataclass(frozen=True, slots=True)
class Ports:
    """Where it listens: OTLP over gRPC and HTTP, the queries (and page) over HTTP and gRPC, and its health."""

    otlp_grpc: int = 4317
    otlp_http: int = 4318
    query: int = 16686
    query_grpc: int = 16685
    health: int = 13133

    @classmethod
    def free(cls) -> "Ports":
        """Five that nobody listens on now."""
        first = free_block(5)
        return cls(*range(first, first + 5))

    def check(self) -> None:
        """Raises :class:`JaegerFailed` where some program listens on one of them."""
        in_use = taken(astuple(self))
        if in_use:
            raise JaegerFailed(f"some program listens on port {', '.join(map(str, in_use))} already: choose others")


class LocalJaeger:
    """One Jaeger process with a folder for its configuration and log. A context manager: it ends with the block.

    What it was told is in memory only, bounded to the last 100,000 traces, and gone with it.
    """

    def __init__(self, binary: Path, folder: Path, ports: Ports) -> None:
        self.ports = ports
        self.log = folder / "jaeger.log"
        self._binary = binary
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def query(self) -> str:
        """The address of its page and its HTTP API."""
        return f"http://{HOST}:{self.ports.query}"

    @property
    def otlp_http(self) -> str:
        """What ``OTEL_EXPORTER_OTLP_ENDPOINT`` is to be."""
        return f"http://{HOST}:{self.ports.otlp_http}"

    @property
    def otlp_grpc(self) -> str:
        """The same, where ``OTEL_EXPORTER_OTLP_PROTOCOL`` is grpc."""
        return f"http://{HOST}:{self.ports.otlp_grpc}"

    def start(self) -> None:
        """Start it, and return when it is healthy. Raises :class:`JaegerFailed`; then nothing runs."""
        self.ports.check()
        self._folder.mkdir(parents=True, exist_ok=True)
        configuration = self._folder / "config.yaml"
        configuration.write_text(configuration_of(self.ports))
        # A caller's OTEL_ settings are not Jaeger's business. A session of its own: Ctrl-C is for us to pass on.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [self._binary, "--config", f"file:{configuration}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        try:
            self._await_health(self._process)
        except BaseException:
            self.kill()
            raise

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Until it ends by itself: its exit code, or None where the time ran out first."""
        assert self._process is not None, "not started"
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def stop(self) -> None:
        """End it gracefully, or after 10 seconds not so. Idempotent."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            if self.wait(_STOP_S) is None:
                self.kill()

    def kill(self) -> None:
        """End it at once, as a crash does. Idempotent."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def _await_health(self, process: "subprocess.Popen[bytes]") -> None:
        give_up = time.monotonic() + _READY_S
        while not is_ready(f"http://{HOST}:{self.ports.health}/status"):
            if process.poll() is not None:
                raise JaegerFailed(f"it ended with {process.returncode}:\n{self.last_lines()}")
            if time.monotonic() > give_up:
                raise JaegerFailed(f"it was not healthy after {_READY_S:.0f} s:\n{self.last_lines()}")
            time.sleep(_LOOK_S)

    def last_lines(self) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-10:])


def serve(ports: Ports, progress: Progress, ready: Callable[[LocalJaeger], None]) -> None:
    """Build one if need be, start it, say that it is ready, and wait: until it ends by itself, which is an error.

    SIGTERM ends it and this process with 0. Whatever is raised meanwhile, KeyboardInterrupt too, ends it first. Raises
    :class:`ConfigurationError` where it cannot be had, :class:`JaegerFailed` where it does not start or go on.
    """
    ports.check()  # before minutes are spent on a build
    binary = jaeger_binary(progress)
    with tempfile.TemporaryDirectory(prefix="pavane-jaeger-") as folder, LocalJaeger(binary, Path(folder), ports) as jaeger:
        signal.signal(signal.SIGTERM, _leave)
        ready(jaeger)
        code = jaeger.wait()
        raise JaegerFailed(f"it ended with {code}:\n{jaeger.last_lines()}")


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(0)


def is_ready(url: str) -> bool:
    """Whether that address answers with 200."""
    try:
        with urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except (URLError, OSError):
        return False


def configuration_of(ports: Ports) -> str:
    """Jaeger's configuration: OTLP in, memory, queries, and no noise."""
    lines: Sequence[str] = (
        "service:",
        "  extensions: [jaeger_storage, jaeger_query, healthcheckv2]",
        "  pipelines:",
        "    traces: {receivers: [otlp], exporters: [jaeger_storage_exporter]}",
        "  telemetry:",
        "    metrics: {level: none}",
        "    logs: {level: warn}",
        "extensions:",
        "  jaeger_storage:",
        f"    backends: {{memory: {{memory: {{max_traces: {MOST_TRACES}}}}}}}",
        "  jaeger_query:",
        "    storage: {traces: memory}",
        "    enable_tracing: false",
        f'    http: {{endpoint: "{HOST}:{ports.query}"}}',
        f'    grpc: {{endpoint: "{HOST}:{ports.query_grpc}"}}',
        "  healthcheckv2:",
        "    use_v2: true",
        f'    http: {{endpoint: "{HOST}:{ports.health}"}}',
        "receivers:",
        "  otlp:",
        "    protocols:",
        f'      grpc: {{endpoint: "{HOST}:{ports.otlp_grpc}"}}',
        f'      http: {{endpoint: "{HOST}:{ports.otlp_http}"}}',
        "exporters:",
        "  jaeger_storage_exporter: {trace_storage: memory}",
    )
    return "\n".join(lines) + "\n"
