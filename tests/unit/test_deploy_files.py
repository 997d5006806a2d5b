"""What the deployment files name is there: settings, targets, and more patience in orchestrators than in agents."""

import re
import tomllib
from pathlib import Path

import pytest

from pavane.cli.targets import load_targets
from pavane.plan import plan_of
from pavane.settings import Settings
from pavane_credit import clerk
from pavane_credit.choreography import AGENTS, SAGAS
from pavane_credit.where import Where
from support.composed import BUILT_IN, PYTHON, SERVERS, WORKERS, Deployment

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE = DEPLOY / "docker-compose.yml"
CHART = DEPLOY / "helm/pavane"
FILES = (
    COMPOSE,
    DEPLOY / "Dockerfile",
    DEPLOY / "healthy.py",
    CHART / "values.yaml",
    *sorted((CHART / "templates").iterdir()),
)
EVERYBODY = (*AGENTS, clerk.agent)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_variable_in_a_deployment_file_is_a_setting(path: Path) -> None:
    known = {f"PAVANE_{name.upper()}" for name in Settings.model_fields}
    known |= {f"CREDIT_{name.upper()}" for name in Where.model_fields}
    named = set(re.findall(r"\b(?:PAVANE|CREDIT)_[A-Z_]*[A-Z]\b", path.read_text()))
    assert named <= known, named - known


@pytest.mark.parametrize("path", [COMPOSE, CHART / "values.yaml"], ids=lambda path: path.name)
def test_every_agent_and_the_saga_have_a_worker_of_their_own(path: Path) -> None:
    targets = set(re.findall(r"pavane_credit\.\w+:\w+", path.read_text()))
    singles = [load_targets([target]) for target in targets if target.endswith(":agent")]
    assert sorted(agent.name for found in singles for agent in found.agents) == sorted(agent.name for agent in EVERYBODY)
    assert load_targets(["pavane_credit.choreography:SAGAS"]).sagas == SAGAS
    assert {"pavane_credit.choreography:SAGAS", "pavane_credit.choreography:AGENTS"} <= targets


def test_a_service_of_an_agent_is_called_as_the_agent() -> None:
    services = re.findall(
        r"^  ([a-z-]+):.*\n(?:    .*\n)*?    command: \[run, \"(\S+:agent)\"\]", COMPOSE.read_text(), re.MULTILINE
    )
    assert sorted(services) == sorted((load_targets([target]).agents[0].name, target) for _, target in services)
    assert len(services) == len(EVERYBODY)


def test_an_agent_scales_on_topics_that_it_consumes() -> None:
    found = re.findall(r"target: (\S+:agent)\n    scaleOn: \[(.*)\]", (CHART / "values.yaml").read_text())
    assert len(found) == len(EVERYBODY)
    for target, topics in found:
        (agent,) = load_targets([target]).agents
        assert set(topics.split(", ")) <= set(plan_of(agent).topics)


def test_orchestrators_wait_longer_than_agents_drain() -> None:
    text = COMPOSE.read_text()
    drain, grace = (
        re.search(r'PAVANE_DRAIN_S: "(\d+)"', text),
        re.search(r"stop_grace_period: (\d+)s", text.partition("x-agent")[2]),
    )
    assert drain is not None
    assert grace is not None
    assert int(grace[1]) >= int(drain[1]) + 5
    assert (
        "terminationGracePeriodSeconds: {{ add $.Values.drainSeconds 10 }}" in (CHART / "templates/workers.yaml").read_text()
    )


def test_whoever_is_told_to_keep_state_on_a_disk_has_one() -> None:
    text = COMPOSE.read_text()
    agent = text.partition("x-agent:")[2].partition("\n\n")[0]
    (place,) = re.findall(r"PAVANE_KAFKA_STATE_DIR: (\S+)", text)
    assert f"PAVANE_KAFKA_STATE_DIR: {place}" in agent
    assert f", {place}]" in agent.partition("volumes: ")[2].splitlines()[0]


def test_every_image_is_pinned_and_every_port_is_open_to_this_machine_only() -> None:
    assert len(SERVERS) == 2
    assert all(re.fullmatch(r"[a-z/]+:\d+\.\d+\.\d+", image) for image in SERVERS), SERVERS
    assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim-[a-z]+", PYTHON)
    assert set(re.findall(r"^FROM (\S+)", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)) == {"${PYTHON}"}
    text = COMPOSE.read_text()
    ports = re.findall(r'"(\S+:\d+)"', "".join(re.findall(r"ports:(?: \[.*\]|\n(?:      - .*\n)+)", text)))
    assert len(ports) == 3
    assert all(port.startswith("127.0.0.1:") for port in ports), ports


def test_the_image_is_built_from_all_that_its_build_reads(tmp_path: Path) -> None:
    """In a copy of what .dockerignore lets in: so the deployment that tests build is the one that users build."""
    _ = Deployment(tmp_path)
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    for part in (*BUILT_IN, *wheel["packages"], *wheel["hooks"]["custom"]["modules"]):
        assert (tmp_path / part).exists(), f"{part} is not copied"
    for part in ("hatch_build.py", "stubs", "deploy/healthy.py"):
        assert part in BUILT_IN


def test_the_page_upgrades_and_lists_every_worker() -> None:
    page = (ROOT / "docs/how-to/deploy-with-containers.md").read_text()
    assert f"for service in {' '.join(WORKERS)}; do" in page
    assert f"| {', '.join(f'`{each}`' for each in WORKERS)} |" in page
