"""Jaeger as a container, on ports of its own on the loopback interface."""

import time
from contextlib import suppress
from typing import cast

from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer

from pavane.dev.jaeger import JaegerFailed, is_ready
from pavane.dev.jaeger_build import VERSION
from pavane.dev.ports import HOST
from support.docker_cli import daemon_problem

IMAGE = f"jaegertracing/jaeger:{VERSION}"
QUERY, OTLP_GRPC, OTLP_HTTP = 16686, 4317, 4318
_READY_S = 30.0
_LOOK_S = 0.05


class JaegerContainer:
    """One container of the public image with its own configuration: everything in memory."""

    def __init__(self) -> None:
        testcontainers_config.ryuk_disabled = True  # another image to pull, and whoever starts this one stops it
        self._container = DockerContainer(IMAGE)
        ports = cast("dict[str, object]", self._container.ports)
        ports.update({f"{each}/tcp": (HOST, None) for each in (QUERY, OTLP_GRPC, OTLP_HTTP)})

    def start(self) -> None:
        """Start it, and return when it answers. Raises :class:`JaegerFailed`; then nothing runs."""
        self._container.start()
        give_up = time.monotonic() + _READY_S
        while not is_ready(f"{self.address(QUERY)}/api/services"):
            if time.monotonic() > give_up:
                log = self._container.get_wrapped_container().logs(tail=10).decode(errors="replace")
                self.stop()
                raise JaegerFailed(f"{IMAGE} did not answer within {_READY_S:.0f} s:\n{log}")
            time.sleep(_LOOK_S)

    def address(self, port: int) -> str:
        """Where one of its ports is to be reached."""
        return f"http://{HOST}:{self._container.get_exposed_port(port)}"

    def kill(self) -> None:
        """End it at once, as a crash does."""
        self._container.get_wrapped_container().kill()

    def stop(self) -> None:
        """End it and take it away."""
        self._container.stop()


def start_container() -> JaegerContainer | str:
    """A running container, or why there is none: no Docker here, no such image to be had, or it does not answer."""
    if (problem := daemon_problem()) is not None:
        return problem
    container: JaegerContainer | None = None
    try:
        container = JaegerContainer()
        container.start()
    except Exception as error:  # whatever Docker's client raises: it is one of several ways
        if container is not None:
            with suppress(Exception):
                container.stop()
        return f"{type(error).__name__}: {str(error).partition(chr(10))[0][:120]}"
    return container
