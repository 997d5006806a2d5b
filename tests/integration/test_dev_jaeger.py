"""``pavane dev jaeger``, as a process of its own: it says how to reach it, and ends when it is told to."""

import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager

import pytest

from pavane.dev.jaeger import Ports, is_ready
from pavane.dev.jaeger_build import binary_path

JAEGER = (sys.executable, "-m", "pavane", "dev", "jaeger")
_SOON_S = 30.0


@pytest.fixture(autouse=True)
def built() -> None:
    if not binary_path().exists():
        pytest.skip("no Jaeger was built here: `pavane dev jaeger` does so, in some minutes")


def options(ports: Ports) -> list[str]:
    return ["--port", str(ports.query), "--otlp-http", str(ports.otlp_http), "--otlp-grpc", str(ports.otlp_grpc)]


@contextmanager
def running(ports: Ports) -> Generator["subprocess.Popen[str]"]:
    with subprocess.Popen(
        [*JAEGER, *options(ports)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_it_says_how_to_reach_it_and_takes_jaeger_with_it_when_it_ends(number: signal.Signals, code: int) -> None:
    ports = Ports.free()
    with running(ports) as process:
        assert process.stdout is not None
        said = [process.stdout.readline().strip() for _ in range(2)]
        query = f"http://127.0.0.1:{ports.query}"
        assert said == [f"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:{ports.otlp_http}", f"PAVANE_JAEGER_URL={query}"]
        assert is_ready(f"{query}/api/services")
        process.send_signal(number)
        _, err = process.communicate(timeout=_SOON_S)
    assert (process.returncode, "Traceback" in err) == (code, False)
    ports.check()


def test_a_second_one_on_the_same_ports_says_so() -> None:
    ports = Ports.free()
    with running(ports) as first:
        assert first.stdout is not None
        assert first.stdout.readline()
        second = subprocess.run(
            [*JAEGER, *options(ports)], capture_output=True, text=True, timeout=_SOON_S, check=False, env=os.environ
        )
        assert second.returncode == 1
        assert second.stderr.startswith("error: some program listens on port ")
        first.send_signal(signal.SIGTERM)
        first.communicate(timeout=_SOON_S)
