"""The Helm chart: what it renders, and what it refuses. Needs helm on the PATH, and no cluster."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

CHART = Path(__file__).parents[2] / "deploy/helm/pavane"
SECURED = (
    "kafka.security=SASL_SSL",
    "kafka.credentials.secret=kafka-user",
    "kafka.tls.secret=kafka-tls",
    "topics.credentialsSecret=kafka-admin",
    "scaling.enabled=true",
)

pytestmark = pytest.mark.skipif(shutil.which("helm") is None, reason="no helm on the PATH")


def helm(*values: str, command: Sequence[str] = ("template", "demo")) -> "subprocess.CompletedProcess[str]":
    settings = [part for value in values for part in ("--set", value)]
    version = () if "lint" in command else ("--kube-version", "1.33.0")
    line = ["helm", *command, str(CHART), *version, *settings]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)


def rendered(*values: str) -> list[str]:
    answer = helm(*values)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.split("\n---\n")


def of_kind(documents: Sequence[str], kind: str) -> list[str]:
    return [each for each in documents if f"\nkind: {kind}\n" in each]


def test_it_is_in_order() -> None:
    answer = helm(command=("lint", "--strict"))
    assert answer.returncode == 0, answer.stdout


def test_each_worker_is_a_stateful_set_whose_pods_are_static_members() -> None:
    workers = of_kind(rendered(), "StatefulSet")
    assert len(workers) == 6
    for each in workers:
        assert "- name: PAVANE_KAFKA_INSTANCE\n              valueFrom: {fieldRef: {fieldPath: metadata.name}}" in each
        assert "terminationGracePeriodSeconds: 20" in each
        assert "path: /ready" in each
        assert "readOnlyRootFilesystem: true" in each
    assert len(of_kind(rendered(), "PodDisruptionBudget")) == 6


def test_topics_are_applied_before_anything_else_under_a_user_of_their_own() -> None:
    (job,) = of_kind(rendered(*SECURED), "Job")
    assert "helm.sh/hook: pre-install,pre-upgrade" in job
    assert "name: kafka-admin" in job
    assert "kafka-user" not in job


def test_scaling_goes_by_the_lag_of_the_group_and_no_further_than_the_partitions() -> None:
    documents = rendered(*SECURED, "kafka.prefix=prod.", "partitions=9", "workers.approval.scaleOn=null")
    scaled = of_kind(documents, "ScaledObject")
    groups = {line.strip() for each in scaled for line in each.splitlines() if "consumerGroup" in line}
    agents = ("credit-score", "income-verification", "fraud-detection", "risk-assessment", "pavane.coordinator")
    assert groups == {f"consumerGroup: prod.{name}" for name in agents}
    assert all("maxReplicaCount: 9" in each for each in scaled)
    assert any("topic: prod.credit.score-computed" in each for each in scaled)
    fixed = [each for each in of_kind(documents, "StatefulSet") if "\n  replicas: 1\n" in each]
    assert len(fixed) == 1
    assert "name: demo-approval\n" in fixed[0]


def test_a_big_number_stays_a_number() -> None:
    assert all('value: "2000000"' in each for each in of_kind(rendered("environment.CREDIT_LINE_DM=2000000"), "StatefulSet"))


@pytest.mark.parametrize(
    ("values", "named"),
    [
        (["kafka.security=SASL_SSL"], "secret"),
        (["kafka.sercurity=SSL"], "sercurity"),
        (["kafka.tls.secret=kafka-tls"], "tls"),
        (["kafka.servers=kafka"], "servers"),
        (["workers.approval.target=approval"], "target"),
        (["environment.pavane_log=debug"], "pavane_log"),
        (["workers.approval.replicas=5"], "only 4 partitions"),
    ],
    ids=str,
)
def test_wrong_values_are_refused_by_name(values: list[str], named: str) -> None:
    answer = helm(*values)
    assert answer.returncode != 0
    assert named in answer.stderr
