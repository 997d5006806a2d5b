"""The compose deployment of a copy of this project, under a name and on ports of its own, with faults and upgrades."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import CompletedProcess
from typing import cast

from pavane.dev.ports import HOST, free_block
from pavane_credit.applications import read_applications
from pavane_events.ids import uuid7
from support.require import unavailable

ROOT = Path(__file__).parents[2]
DOCKERFILE, COMPOSE, IGNORE = "deploy/Dockerfile", "deploy/docker-compose.yml", ".dockerignore"
ANY_PYTHON = "python:3.12-slim"  # built upon where the one that the Dockerfile names is not to be had
INTAKE = "credit.applications"
_BUILD_S, _UP_S, _COMMAND_S, _LOOK_S = 1_800.0, 300.0, 120.0, 0.5
_TRIES = 3
_BUS_UNAVAILABLE = 3  # as by docs/reference/cli.md
_IN_CONTAINER = "/opt/pavane/healthy.py"


def _found(pattern: str, file: str) -> list[str]:
    return [str(each) for each in re.findall(pattern, (ROOT / file).read_text(), re.MULTILINE)]


WORKERS = _found(r"^  ([a-z-]+):.*\n    <<: \*agent\n    command: \[run,", COMPOSE)
"""The services that run a worker, the coordinator first."""
SERVERS = _found(r"^ +image: ([^$\s]+)$", COMPOSE)
"""The images that are run as they are."""
(PYTHON,) = _found(r"^ARG PYTHON=(\S+)$", DOCKERFILE)
"""The image that is built upon, where nobody names another."""
BUILT_IN = _found(r"^!(\S+)$", IGNORE)
"""What of the project the image is built from."""


def need_docker() -> None:
    """End the test where there is no Docker with compose, no image that the deployment needs, or no way to kill."""
    if shutil.which("docker") is None:
        unavailable("docker", "there is no docker on the PATH")
    for command in (["docker", "info"], ["docker", "compose", "version"]):
        answer = _run(command, timeout_s=30.0)
        if answer.returncode:
            unavailable("docker", f"`{' '.join(command)}` says: {answer.stderr.strip()[-200:]}")
    missing = [image for image in SERVERS if not _is_here(image)]
    missing += [] if any(map(_is_here, (PYTHON, ANY_PYTHON))) else [PYTHON]
    if missing:
        unavailable("docker", f"images are missing; get them first: docker pull {' '.join(missing)}")
    if os.geteuid() != 0:
        unavailable("docker", "killing a container's process as a crash does takes root on the daemon's machine")


@dataclass(frozen=True, slots=True)
class Container:
    """One container as Docker describes it now."""

    id: str
    pid: int
    restarts: int
    image: str
    user: str
    read_only: bool
    ports: Mapping[str, object]
    healthy: bool
    exit_code: int
    version: str


@dataclass
class Deployment:
    """A compose project. ``folder``: a copy of the sources that may be changed; ``version``: what is built from it."""

    folder: Path
    name: str = field(default_factory=lambda: f"pavane-{uuid7()[-8:]}")
    version: str = "1"
    replicas: dict[str, int] = field(default_factory=dict[str, int])
    kafka_port: int = 0
    jaeger_port: int = 0
    otlp_port: int = 0

    def __post_init__(self) -> None:
        for part in ("deploy", IGNORE, *BUILT_IN):
            copy = self.folder / part
            copy.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / part).is_dir():
                shutil.copytree(ROOT / part, copy, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
            else:
                shutil.copy(ROOT / part, copy)
        self.kafka_port = free_block(3)
        self.jaeger_port, self.otlp_port = self.kafka_port + 1, self.kafka_port + 2

    @property
    def jaeger_url(self) -> str:
        """Where people open traces."""
        return f"http://{HOST}:{self.jaeger_port}"

    def compose(self, *arguments: str, stdin: str | None = None, timeout_s: float = _COMMAND_S) -> str:
        """``docker compose ...``: what it printed. Raises AssertionError with all it said where it fails."""
        answer = self.attempt(*arguments, stdin=stdin, timeout_s=timeout_s)
        assert answer.returncode == 0, f"{' '.join(answer.args)}\n{answer.stdout}\n{answer.stderr}"
        return answer.stdout

    def attempt(self, *arguments: str, stdin: str | None = None, timeout_s: float = _COMMAND_S) -> "CompletedProcess[str]":
        """``docker compose ...``, whatever comes of it."""
        command = ["docker", "compose", "-p", self.name, "-f", str(self.folder / COMPOSE), *arguments]
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("COMPOSE_", "PAVANE_"))}
        ours = {
            "HOST_KAFKA_PORT": str(self.kafka_port),
            "HOST_JAEGER_PORT": str(self.jaeger_port),
            "HOST_OTLP_PORT": str(self.otlp_port),
            "IMAGE": self.name,
            "VERSION": self.version,
        }
        return _run(command, environment={**environment, **ours}, stdin=stdin, timeout_s=timeout_s)

    def build(self, *, compiled: bool = True) -> None:
        """Build the image of the current version from the folder."""
        python = next(image for image in (PYTHON, ANY_PYTHON) if _is_here(image))
        arguments = ("--build-arg", f"PYTHON={python}", "--build-arg", f"COMPILED={compiled:d}")
        self.compose("build", *arguments, timeout_s=_BUILD_S)

    def up(self) -> float:
        """``docker compose up --wait``; seconds until all were healthy."""
        began = time.monotonic()
        self.compose("up", "--wait", "--no-build", *self._scaled(), timeout_s=_UP_S)
        return time.monotonic() - began

    def scale(self, service: str, replicas: int) -> None:
        """That many containers of one service, all healthy."""
        self.replicas[service] = replicas
        self.compose(
            "up", "--wait", "--no-build", "--no-deps", "--no-recreate", *self._scaled(service), service, timeout_s=_UP_S
        )

    def upgrade(self, version: str) -> None:
        """Build a version from the folder as it is now, without a compiler, and bring it to each worker in turn."""
        self.version = version
        self.build(compiled=False)
        for service in WORKERS:
            self.compose("up", "--wait", "--no-build", "--no-deps", *self._scaled(service), service, timeout_s=_UP_S)

    def containers(self, service: str) -> list[Container]:
        """The containers of a service that are there, running or not."""
        ids = self.compose("ps", "--all", "--quiet", service).split()
        return [_described(each) for each in cast("list[dict[str, object]]", json.loads(_docker("inspect", *ids)))]

    def kill(self, service: str, index: int = 0) -> str:
        """SIGKILL to a container's process, as a crash or the kernel does: restart policies count. The container's id."""
        container = self.containers(service)[index]
        assert container.pid > 0, f"{service} does not run"
        os.kill(container.pid, signal.SIGKILL)
        return container.id

    def wait_healthy(self, service: str, timeout_s: float = 180.0) -> None:
        """Until every container of a service is healthy by Docker's own health checks."""
        self.wait(lambda: all(each.healthy for each in self.containers(service)), f"{service} is healthy", timeout_s)

    def wait_restarted(self, service: str, container: str, timeout_s: float = 60.0) -> None:
        """Until Docker has started a container again."""

        def again() -> bool:
            return any(each.restarts and each.pid for each in self.containers(service) if each.id == container)

        self.wait(again, f"{service} was started again", timeout_s)

    def says_ready(self, service: str) -> bool:
        """What the image's health check says in a container now."""
        return self.attempt("exec", "-T", service, "python", "-I", "-S", _IN_CONTAINER).returncode == 0

    def wait(self, condition: Callable[[], bool], what: str, timeout_s: float) -> None:
        """Until a condition holds. Raises AssertionError with the services' states where it does not in time."""
        give_up = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < give_up, f"not within {timeout_s:.0f} s: {what}\n{self.compose('ps', '--all')}"
            time.sleep(_LOOK_S)

    def publish(self, documents: str) -> "CompletedProcess[str]":
        """``pavane publish`` on this machine, outside all containers; published twice is admitted once."""
        command = [sys.executable, "-m", "pavane", "publish", INTAKE, "-", "--id-field", "application_id"]
        return self._pavane(command, documents)

    def tell(self, *arguments: str) -> str:
        """A ``pavane`` command on this machine."""
        answer = self._pavane([sys.executable, "-m", "pavane", *arguments])
        assert answer.returncode == 0, f"{arguments}: {answer.stderr}"
        return answer.stdout

    def audit(self, expect: int, wait_s: float) -> Mapping[str, object]:
        """``pavane audit`` beside the ledgers: every saga ended, ledgers agree. Raises AssertionError with what is wrong."""
        wanted = ("audit", "--expect", str(expect), "--wait", str(wait_s), "--json")
        give_up = time.monotonic() + wait_s
        while True:
            answer = self.attempt("run", "--rm", "-T", "--no-deps", "pavane", *wanted, timeout_s=wait_s + _COMMAND_S)
            if answer.returncode != _BUS_UNAVAILABLE or time.monotonic() > give_up:
                break
        assert answer.returncode == 0, f"{answer.stdout}\n{answer.stderr}\n{self.logs()}"
        return cast("dict[str, object]", json.loads(answer.stdout))

    def memory_mib(self) -> dict[str, float]:
        """What each container holds, as ``docker stats`` counts it."""
        rows = _docker("stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}}").splitlines()
        own = [row.split() for row in rows if row.startswith(f"{self.name}-")]
        return {name.removeprefix(f"{self.name}-"): _mib(used) for name, used, *_ in own}

    def logs(self) -> str:
        """The last lines of every worker."""
        return self.attempt("logs", "--no-color", "--tail", "15", *WORKERS).stdout

    def down(self) -> None:
        """All of it away, volumes and images too."""
        for _ in range(_TRIES):  # a command that was given up may still be making containers
            self.attempt("--profile", "tools", "down", "--volumes", "--remove-orphans", "--timeout", "5")
            if not _docker("ps", "--all", "--quiet", "--filter", f"label=com.docker.compose.project={self.name}"):
                break
        tags = _run(["docker", "images", "--format", "{{.Repository}}:{{.Tag}}", self.name], timeout_s=30.0).stdout.split()
        if tags:
            _ = _run(["docker", "rmi", "--force", *tags], timeout_s=60.0)

    def _scaled(self, *services: str) -> Iterable[str]:
        for service, count in self.replicas.items():
            if not services or service in services:
                yield from ("--scale", f"{service}={count}")

    def _pavane(self, command: list[str], stdin: str | None = None) -> "CompletedProcess[str]":
        ours = {
            "PAVANE_BUS": f"kafka://{HOST}:{self.kafka_port}",
            "PAVANE_JAEGER_URL": self.jaeger_url,
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{HOST}:{self.otlp_port}",
        }
        others = {name: value for name, value in os.environ.items() if not name.startswith(("PAVANE_", "OTEL_"))}
        return _run(command, environment={**others, **ours}, stdin=stdin, timeout_s=_COMMAND_S)


def applications(first: int, count: int) -> str:
    """Real applications as JSON lines, plain as an applicant's system would write them."""
    return "".join(each.event.to_json().decode() + "\n" for each in read_applications()[first : first + count])


def _is_here(image: str) -> bool:
    return _run(["docker", "image", "inspect", image], timeout_s=30.0).returncode == 0


def _described(found: dict[str, object]) -> Container:
    state = cast("dict[str, object]", found["State"])
    config = cast("dict[str, object]", found["Config"])
    host = cast("dict[str, object]", found["HostConfig"])
    health = cast("dict[str, object]", state.get("Health", {}))
    labels = cast("dict[str, str]", config["Labels"])
    return Container(
        id=str(found["Id"]),
        pid=cast("int", state["Pid"]),
        restarts=cast("int", found["RestartCount"]),
        image=str(config["Image"]),
        user=str(config["User"]),
        read_only=host["ReadonlyRootfs"] is True,
        ports=cast("dict[str, object]", host["PortBindings"]),
        healthy=state["Running"] is True and health.get("Status") == "healthy",
        exit_code=cast("int", state["ExitCode"]),
        version=labels.get("org.opencontainers.image.version", ""),
    )


def _mib(text: str) -> float:
    for unit, factor in (("GiB", 1024.0), ("MiB", 1.0), ("KiB", 1 / 1024)):
        if text.endswith(unit):
            return float(text.removesuffix(unit)) * factor
    return 0.0


def _docker(*arguments: str) -> str:
    answer = _run(["docker", *arguments], timeout_s=60.0)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def _run(
    command: list[str], *, timeout_s: float, environment: Mapping[str, str] | None = None, stdin: str | None = None
) -> "CompletedProcess[str]":
    if stdin is None:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=timeout_s, env=environment, check=False, stdin=subprocess.DEVNULL
        )
    return subprocess.run(
        command, capture_output=True, text=True, timeout=timeout_s, env=environment, check=False, input=stdin
    )
