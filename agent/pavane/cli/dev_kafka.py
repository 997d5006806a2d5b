"""``pavane dev kafka``: a real Apache Kafka on this machine, until Ctrl-C or in the background."""

import signal
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from pavane.cli.options import JsonOption
from pavane.cli.output import print_json, print_table, say

if TYPE_CHECKING:
    from pavane.dev.kafka import KafkaCluster

T = TypeVar("T")

_LOOK_S = 0.2

app = typer.Typer(invoke_without_command=True)


def _or_before(context: typer.Context, option: typer.CallbackParam, value: T | None) -> T | None:
    """``pavane dev kafka --port 9192 stop`` and ``pavane dev kafka stop --port 9192`` are the same."""
    if value is not None or context.parent is None:
        return value
    return context.parent.params.get(str(option.name))


PortOption = Annotated[
    int | None,
    typer.Option(
        "--port",
        metavar="N",
        min=1024,
        max=65000,
        help="Where clients reach it; takes 2 ports from there on, 6 with three brokers. (default: 9092)",
        callback=_or_before,
        show_default=False,
    ),
]
BrokersOption = Annotated[
    int | None,
    typer.Option(
        "--brokers",
        metavar="1|3",
        help="How many; with three, topics have three copies. (default: 1)",
        callback=_or_before,
        show_default=False,
    ),
]
DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR",
        help="Where its data lies. (default: one folder per port, in the cache folder)",
        callback=_or_before,
        show_default=False,
    ),
]
ForgetOption = Annotated[
    bool | None,
    typer.Option(
        "--forget/--keep", help="Delete its data at the end. (default: --keep)", callback=_or_before, show_default=False
    ),
]


@app.callback()
def kafka(
    context: typer.Context,
    port: PortOption = None,
    brokers: BrokersOption = None,
    data: DataOption = None,
    forget: ForgetOption = None,
) -> None:
    """Run a real Apache Kafka until Ctrl-C, or in the background (start, status, stop). Needs Java 17 and Maven.

    Listens on 127.0.0.1 only. Prints the setting by which Pavane finds it. Exits with 0 after SIGTERM, 130 after Ctrl-C,
    1 where it failed, 2 where it cannot be started here.
    """
    if context.invoked_subcommand is None:
        _run(_cluster(port, brokers, data), bool(forget))


@app.command("start")
def start(port: PortOption = None, brokers: BrokersOption = None, data: DataOption = None) -> None:
    """Start it in the background, and return when it serves. Nothing happens where it runs already."""
    cluster = _cluster(port, brokers, data)
    running = len(cluster.running)
    began = time.monotonic()
    cluster.start()
    took = "runs already" if running == len(cluster.nodes) else f"ready after {time.monotonic() - began:.1f} s"
    _introduce(cluster, took)


@app.command("stop")
def stop(port: PortOption = None, data: DataOption = None, forget: ForgetOption = None) -> None:
    """Stop it gracefully. Its data stays, unless it is told to forget them."""
    cluster = _cluster(port, None, data)
    found = "stopped" if cluster.running else "nothing ran"
    if cluster.folder.exists():
        found += f"; {_whereabouts(cluster, bool(forget))}"
    _end(cluster, bool(forget))
    say(found)


@app.command("status")
def status(port: PortOption = None, data: DataOption = None, as_json: JsonOption = False) -> None:
    """Show whether it runs, and where its log is. Exits with 1 where it does not run, or not all of it."""
    cluster = _cluster(port, None, data)
    nodes = [(node, node.pid) for node in cluster.nodes]
    running = all(pid is not None for _, pid in nodes)
    if as_json:
        listed = [{"node": node.number, "address": node.address, "pid": pid, "log": str(node.log)} for node, pid in nodes]
        about = {"running": running, "servers": cluster.servers, "bus": cluster.url, "data": str(cluster.folder)}
        print_json({**about, "nodes": listed})
    else:
        rows = [(str(node.number), node.address, str(pid) if pid else "does not run", str(node.log)) for node, pid in nodes]
        print_table(("NODE", "ADDRESS", "PROCESS", "LOG"), rows, {"does not run": "red"})
    raise typer.Exit(0 if running else 1)


class _Told(BaseException):
    """A signal came."""

    def __init__(self, number: int) -> None:
        self.number = number


def _run(cluster: "KafkaCluster", forget: bool) -> None:
    from pavane.dev.kafka_jars import KafkaFailed

    if cluster.running:
        pids = ", ".join(str(node.pid) for node in cluster.running)
        raise KafkaFailed(f"it runs already at {cluster.servers} (process {pids}); `pavane dev kafka stop` ends it")
    try:
        with _signals_raise():
            began = time.monotonic()
            cluster.start()
            _introduce(cluster, f"ready after {time.monotonic() - began:.1f} s; Ctrl-C stops it")
            while cluster.running:
                time.sleep(_LOOK_S)
                cluster.check()
        say(f"it was stopped from elsewhere; {_whereabouts(cluster, forget)}")
    except _Told as told:
        say(f"stopping; {_whereabouts(cluster, forget)}")
        if told.number == signal.SIGINT:
            raise KeyboardInterrupt from None
    finally:
        try:
            _end(cluster, forget)
        except KeyboardInterrupt:  # a second Ctrl-C: at once
            if forget:
                cluster.forget()
            else:
                cluster.kill()
            raise


def _end(cluster: "KafkaCluster", forget: bool) -> None:
    cluster.stop()
    if forget:
        cluster.forget()


@contextmanager
def _signals_raise() -> Generator[None]:
    def heed(number: int, frame: FrameType | None) -> None:
        raise _Told(number)

    before = {number: signal.signal(number, heed) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _cluster(port: int | None, brokers: int | None, data: Path | None) -> "KafkaCluster":
    """The cluster that is meant. What is not said is as it was when that data was last used."""
    from pavane.dev.kafka import PORT, KafkaCluster, folder_for
    from pavane.dev.kafka_card import ClusterCard

    folder = data or folder_for(port or PORT)
    card = ClusterCard.read(folder)
    return KafkaCluster(
        folder,
        port=port or (card.port if card else PORT),
        brokers=brokers or (card.brokers if card else 1),
        tell=say,
    )


def _introduce(cluster: "KafkaCluster", how: str) -> None:
    from pavane.dev.kafka_jars import kafka_version

    say(f"Apache Kafka {kafka_version()} at {cluster.servers}, {how}")
    say(f"data and logs in {cluster.folder}")
    print(f"PAVANE_BUS={cluster.url}", flush=True)


def _whereabouts(cluster: "KafkaCluster", forget: bool) -> str:
    return f"its data in {cluster.folder} {'is forgotten' if forget else 'stays'}"
