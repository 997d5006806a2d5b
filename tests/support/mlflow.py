"""A real MLflow for tests: installed once, apart from this project, into the cache folder; started on loopback, on SQLite."""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import cast
from urllib.request import Request, urlopen

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from pavane.dev.cache import cache_folder, locked
from pavane.dev.jaeger import is_ready
from pavane.dev.ports import HOST, free_block
from support.require import unavailable

VERSION = "3.17.2"
_INSTALL_S = 600.0
_READY_S = 120.0
_ARRIVE_S = 30.0
_READ_S = 90.0
_LOOK_S = 0.1
_LAST_CHARACTERS = 1_000
# What MLflow's own client says of the traces of an experiment, as JSON; run by the Python that MLflow is installed in.
_READ = """
import json, sys, time, mlflow
mlflow.set_tracking_uri(sys.argv[1])
give_up = time.monotonic() + float(sys.argv[2])
found = []
while not found and time.monotonic() < give_up:
    found = mlflow.search_traces(locations=["0"], return_type="list")
print(json.dumps([{
    "trace": each.info.trace_id,
    "state": str(each.info.state),
    "duration_ms": each.info.execution_duration,
    "tokens": each.info.token_usage,
    "spans": [{
        "name": span.name, "type": span.span_type, "inputs": span.inputs, "outputs": span.outputs,
        "attributes": span.attributes, "duration_ns": span.end_time_ns - span.start_time_ns,
    } for span in each.data.spans],
} for each in found]))
"""

Json = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class MlflowServer:
    """A running MLflow. Its experiment ``0`` is there for everybody, and empty."""

    url: str
    python: Path

    @property
    def variables(self) -> Mapping[str, str]:
        """The ``OTEL_`` variables by which spans get there."""
        return {
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{self.url}/v1/traces",
            "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "x-mlflow-experiment-id=0",
        }

    def traces(self) -> Sequence[Json]:
        """Every trace, as MLflow's own client reads it: state, duration, tokens, and spans with inputs and outputs.

        Waits until there is one.
        """
        done = subprocess.run(
            [self.python, "-c", _READ, self.url, str(_ARRIVE_S)],
            env=_environment(),
            capture_output=True,
            text=True,
            timeout=_READ_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-_LAST_CHARACTERS:]
        return cast("Sequence[Json]", json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture
def mlflow() -> Iterator[MlflowServer]:
    """An MLflow for one test alone, empty."""
    try:
        home = _installed()
    except (OSError, TimeoutError, subprocess.SubprocessError) as error:
        said = str(getattr(error, "stderr", "") or error).strip()
        unavailable("mlflow", f"pip cannot install mlflow {VERSION} into {cache_folder()}: {said[-_LAST_CHARACTERS:]}")
    with tempfile.TemporaryDirectory(prefix="pavane-mlflow-") as folder, _running(home, Path(folder)) as server:
        yield server


def _installed() -> Path:
    """An environment with MLflow in it and nothing of ours: some 850 MB, less than a minute the first time."""
    home = cache_folder() / "mlflow" / VERSION
    ready = home / "installed"
    if not ready.exists():
        with locked(home.parent / "lock", timeout_s=_INSTALL_S):
            if not ready.exists():
                shutil.rmtree(home, ignore_errors=True)
                _run(sys.executable, "-m", "venv", home)
                _run(*_pip(home), f"mlflow=={VERSION}")
                ready.touch()
    return home


def _pip(home: Path) -> Sequence[str | Path]:
    return [home / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]


def _run(*command: str | Path) -> None:
    subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_S, check=True)


@contextmanager
def _running(home: Path, folder: Path) -> Generator[MlflowServer]:
    port = free_block(1)
    log = folder / "mlflow.log"
    place = ["--host", HOST, "--port", str(port), "--workers", "1"]
    store = ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--default-artifact-root", str(folder / "artifacts")]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [home / "bin" / "mlflow", "server", *place, *store],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=_environment(),
            start_new_session=True,
        )
    try:
        server = MlflowServer(f"http://{HOST}:{port}", home / "bin" / "python")
        give_up = time.monotonic() + _READY_S
        while not is_ready(f"{server.url}/health"):
            if process.poll() is not None or time.monotonic() > give_up:
                unavailable("mlflow", f"its server does not start:\n{log.read_text()[-_LAST_CHARACTERS:]}")
            time.sleep(_LOOK_S)
        _warm_up(server)
        yield server
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # it leads a session of its own, in which its workers are
        process.wait()


def _warm_up(server: MlflowServer) -> None:
    """The first spans that it takes take it seconds: longer than a service waits for them at its end."""
    name = json.dumps({"name": "warm-up"}).encode()
    made = _post(f"{server.url}/api/2.0/mlflow/experiments/create", name, {"Content-Type": "application/json"})
    experiment = cast("dict[str, str]", json.loads(made))["experiment_id"]
    now = time.time_ns()
    trace_id, span_id = secrets.token_bytes(16), secrets.token_bytes(8)
    span = Span(trace_id=trace_id, span_id=span_id, name="warm-up", start_time_unix_nano=now, end_time_unix_nano=now)
    spans = ExportTraceServiceRequest(resource_spans=[ResourceSpans(scope_spans=[ScopeSpans(spans=[span])])])
    headers = {"Content-Type": "application/x-protobuf", "x-mlflow-experiment-id": experiment}
    _post(f"{server.url}/v1/traces", spans.SerializeToString(), headers)


def _post(url: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    with urlopen(Request(url, body, dict(headers)), timeout=_READY_S) as response:
        return bytes(response.read())


def _environment() -> Mapping[str, str]:
    """Ours, without what is said to our own tracing; and MLflow tells nobody that it is used."""
    others = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "PYTHONPATH"))}
    return {**others, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
