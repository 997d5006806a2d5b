"""The deployment as its users have it: compose up, publish, look into Jaeger, scale, crash, upgrade; the ledgers decide.

The tests are one story of one deployment, in the order of this file. They need Docker with compose, and the images.
"""

import json
import threading
import tomllib
import urllib.error
import urllib.request
from collections.abc import Generator, Mapping
from typing import cast

import pytest

from support.composed import ROOT, WORKERS, Deployment, applications, need_docker

pytestmark = pytest.mark.slow

BATCH, AT_LEAST, AT_MOST = 20, 300, 980
END_S = 180.0
MOST_MIB = 120.0


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Generator[Deployment]:
    """Up and healthy."""
    need_docker()
    deployment = Deployment(tmp_path_factory.mktemp("deployment"))
    try:
        deployment.build()
        print(f"healthy after {deployment.up():.1f} s")
        yield deployment
    finally:
        deployment.down()


class Applicants(threading.Thread):
    """Applications, a few at a time, until there were enough of them and of faults. What is refused is sent again."""

    def __init__(self, deployment: Deployment) -> None:
        super().__init__(name="applicants", daemon=True)
        self.published = 0
        self.refused = 0
        self._deployment = deployment
        self._enough = threading.Event()

    def run(self) -> None:
        while self.published < AT_MOST and not (self._enough.is_set() and self.published >= AT_LEAST):
            answer = self._deployment.publish(applications(10 + self.published, BATCH))
            if answer.returncode == 0:
                self.published += BATCH
            else:
                self.refused += 1

    def __enter__(self) -> "Applicants":
        self.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._enough.set()
        self.join(END_S)


def get(url: str) -> Mapping[str, object]:
    with urllib.request.urlopen(url, timeout=10.0) as answer:
        return cast("dict[str, object]", json.load(answer))


def spans_of(deployment: Deployment, trace: str) -> list[dict[str, object]]:
    """The trace's spans as Jaeger's page gets them; none where Jaeger does not know it yet."""
    try:
        traces = cast("list[dict[str, list[dict[str, object]]]]", get(f"{deployment.jaeger_url}/api/traces/{trace}")["data"])
    except urllib.error.HTTPError:
        return []
    return traces[0]["spans"]


def test_everything_that_runs_is_confined(deployment: Deployment) -> None:
    for service in WORKERS:
        (worker,) = deployment.containers(service)
        assert (worker.user, worker.read_only, worker.version) == ("10001:10001", True, "1")
        assert worker.ports == {}
    for service in ("kafka", "jaeger"):
        (server,) = deployment.containers(service)
        bindings = cast("Mapping[str, list[Mapping[str, str]]]", server.ports)
        assert {each["HostIp"] for port in bindings.values() for each in port} == {"127.0.0.1"}


def test_every_worker_runs_the_compiled_modules_and_nothing_beside_them_can_compile_or_install(deployment: Deployment) -> None:
    hooks = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]
    modules = [path.partition("/")[2].removesuffix(".py").replace("/", ".") for path in hooks["custom"]["modules"]]
    where = "import importlib, sys; print(*(importlib.import_module(each).__file__ for each in sys.argv[1:]), sep='\\n')"
    for service in WORKERS:
        files = deployment.compose("exec", "-T", service, "python", "-c", where, *modules).split()
        assert len(files) == len(modules)
        assert all(each.startswith("/opt/pavane/lib/") and each.endswith(".so") for each in files), files
    tools = (
        'for each in cc gcc g++ clang as ld make mypyc hatchling; do command -v "$each"; done; ls /opt/pavane/bin/pip*; true'
    )
    assert deployment.compose("exec", "-T", "approval", "sh", "-c", tools) == ""
    find = "from importlib.util import find_spec; import sys; print(*filter(find_spec, sys.argv[1:]))"
    builders = ("pip", "setuptools", "mypy", "hatchling")
    assert deployment.compose("exec", "-T", "approval", "python", "-c", find, *builders).strip() == ""


def test_an_application_published_from_outside_is_decided_and_its_trace_is_where_the_link_says(deployment: Deployment) -> None:
    answer = deployment.publish(applications(0, 1))
    assert answer.returncode == 0, answer.stderr
    link = next(line.removeprefix("trace: ") for line in answer.stdout.splitlines() if line.startswith("trace: "))
    assert link.startswith(f"{deployment.jaeger_url}/trace/")
    trace = link.rpartition("/")[2]

    def ended() -> bool:
        return any(each["operationName"] == "saga credit-decision end" for each in spans_of(deployment, trace))

    deployment.wait(ended, "the end of the saga is in Jaeger", timeout_s=60.0)
    deployment.audit(expect=1, wait_s=30.0)


def test_kafkas_own_producer_starts_sagas_with_plain_json(deployment: Deployment) -> None:
    producer = (
        "/opt/kafka/bin/kafka-console-producer.sh",
        "--bootstrap-server",
        "kafka:19092",
        "--topic",
        "credit.applications",
    )
    deployment.compose("exec", "-T", "kafka", *producer, stdin=applications(1, 9))
    found = deployment.audit(expect=10, wait_s=60.0)
    assert sum(cast("Mapping[str, int]", found["sagas"]).values()) == 10


def test_no_crash_and_no_upgrade_breaks_the_invariant(deployment: Deployment) -> None:
    with Applicants(deployment) as applicants:
        deployment.scale("risk-assessment", 3)
        assert len(deployment.containers("risk-assessment")) == 3

        killed = [("risk-assessment", 1), ("credit-score", 0), ("approval", 0), ("coordinator", 0)]
        crashed = [(service, deployment.kill(service, index)) for service, index in killed]
        for service, container in crashed:
            deployment.wait_restarted(service, container)
        for service in WORKERS:
            deployment.wait_healthy(service)

        broker = deployment.kill("kafka")
        deployment.wait_restarted("kafka", broker)
        for service in ("kafka", *WORKERS):
            deployment.wait_healthy(service)

        memory = deployment.memory_mib()
        print(f"MiB: {memory}")
        assert all(used < MOST_MIB for name, used in memory.items() if name.startswith(tuple(WORKERS)))

        steps = deployment.folder / "services/pavane_credit/score.py"
        steps.write_text(steps.read_text().replace("within=timedelta(seconds=60)", "within=timedelta(seconds=45)"))
        deployment.upgrade("2")
        for service in WORKERS:
            assert {each.version for each in deployment.containers(service)} == {"2"}
        assert "(compiled)" not in deployment.compose("exec", "-T", "approval", "pavane", "--version")
    assert applicants.published >= AT_LEAST
    found = deployment.audit(expect=10 + applicants.published, wait_s=END_S)
    print(f"{found}, {applicants.refused} batches were refused and sent again")


def test_a_worker_without_a_broker_says_that_it_is_not_ready_and_is_ready_when_it_is_back(deployment: Deployment) -> None:
    deployment.compose("stop", "kafka")
    deployment.wait(lambda: not deployment.says_ready("credit-score"), "credit-score is not ready", timeout_s=60.0)
    deployment.compose("start", "kafka")
    for service in ("kafka", *WORKERS):
        deployment.wait_healthy(service)
    assert deployment.publish(applications(999, 1)).returncode == 0
    deployment.audit(expect=AT_LEAST + 11, wait_s=60.0)


def test_every_worker_stops_within_its_grace(deployment: Deployment) -> None:
    deployment.compose("stop", *WORKERS)
    for service in WORKERS:
        for container in deployment.containers(service):
            assert not container.pid
            assert container.exit_code == 0, f"{service}: {deployment.logs()}"
