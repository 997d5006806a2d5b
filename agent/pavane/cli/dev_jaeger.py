"""``pavane dev jaeger``: a real Jaeger on this machine, without Docker, until it is told to stop."""

import sys
from typing import Annotated

import typer

from pavane.cli.output import say


def jaeger(
    port: Annotated[int, typer.Option("--port", help="For queries and the page.")] = 16686,
    otlp_http: Annotated[int, typer.Option("--otlp-http", help="For spans over HTTP.")] = 4318,
    otlp_grpc: Annotated[int, typer.Option("--otlp-grpc", help="For spans over gRPC.")] = 4317,
) -> None:
    """Run Jaeger until SIGTERM or Ctrl-C: in memory, on this machine only.

    On standard output are the settings by which spans get there, and by which Pavane finds them. The first time it is
    built from source, which takes Go 1.25 or newer and some minutes; then it starts at once. Exits with 0 after
    SIGTERM, 130 after Ctrl-C, 1 where it does not start, 2 where it cannot be built here.
    """
    from pavane.dev.jaeger import LocalJaeger, Ports, serve
    from pavane.dev.jaeger_build import VERSION
    from pavane.dev.ports import free_block

    def ready(started: LocalJaeger) -> None:
        say(f"Jaeger {VERSION} is ready, in memory. Set this where agents run and where pavane is typed:")
        print(f"OTEL_EXPORTER_OTLP_ENDPOINT={started.otlp_http}")
        print(f"PAVANE_JAEGER_URL={started.query}", flush=True)
        say("it has no web pages: `pavane trace SAGA` draws what it holds, the container image shows it in a browser")

    inside = free_block(2)
    serve(Ports(otlp_grpc, otlp_http, port, inside, inside + 1), _progress, ready)


def _progress(said: str) -> None:
    """One line that is written over on a terminal, a line each elsewhere."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{said}", end="" if said.startswith("compiling") else "\n", file=sys.stderr, flush=True)
    else:
        say(said)
