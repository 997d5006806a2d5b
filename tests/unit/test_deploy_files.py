"""What the deployment files name is there: settings, targets, and more patience in orchestrators than in agents."""

import re
from pathlib import Path

import pytest

from pavane.cli.targets import load_targets
from pavane.plan import plan_of
from pavane.settings import Settings
from pavane_credit import clerk
from pavane_credit.choreography import AGENTS, SAGAS
from pavane_credit.where import Where

DEPLOY = Path(__file__).parents[2] / "deploy"
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


def test_every_image_is_pinned_and_every_port_is_open_to_this_machine_only() -> None:
    text = COMPOSE.read_text()
    images = re.findall(r"^ +image: (\S+)", text, re.MULTILINE)
    assert all(re.fullmatch(r"[a-z/]+:\d+\.\d+\.\d+", image) for image in images if "${" not in image), images
    ports = re.findall(r'"(\S+:\d+)"', "".join(re.findall(r"ports:(?: \[.*\]|\n(?:      - .*\n)+)", text)))
    assert len(ports) == 3
    assert all(port.startswith("127.0.0.1:") for port in ports), ports
