"""The Helm chart: what it renders, and what it refuses. Needs helm on the PATH, and no cluster."""

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from support.require import unavailable

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy/helm/pavane"
WORKERS = re.findall(
    r"^  ([a-z-]+):", (CHART / "values.yaml").read_text().partition("\nworkers:\n")[2].partition("\n\n")[0], re.MULTILINE
)
SECURED = (
    "kafka.security=SASL_SSL",
    "kafka.credentials.secret=kafka-user",
    "kafka.tls.secret=kafka-tls",
    "topics.credentialsSecret=kafka-admin",
    "scaling.enabled=true",
)


@pytest.fixture(autouse=True)
def helm_is_there() -> None:
    if shutil.which("helm") is None:
        unavailable("helm", "there is no helm on the PATH")


def helm(*values: str, command: Sequence[str] = ("template", "demo")) -> "subprocess.CompletedProcess[str]":
    """Values are ``name=value``, or a file of them."""
    settings = [part for value in values for part in ("--set" if "=" in value else "--values", value)]
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


def names(documents: Sequence[str]) -> set[str]:
    return {found[1] for each in documents if (found := re.search(r"^  name: demo-(\S+)$", each, re.MULTILINE))}


def held_against_schemas(documents: Sequence[str], version: str) -> "subprocess.CompletedProcess[str]":
    """What Kubernetes' own schemas say of them, strictly: a field that they do not know is an error."""
    check = [sys.executable, "-m", "kubernetes_validate", "--strict", "--kubernetes-version", version, "-"]
    return subprocess.run(check, input="\n---\n".join(documents), capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("version", ["1.27", "1.33", "1.37"])
@pytest.mark.parametrize("values", [(), SECURED], ids=["as it is", "everything switched on"])
def test_kubernetes_would_take_every_object(values: Sequence[str], version: str) -> None:
    documents = rendered(*values)
    answer = held_against_schemas(documents, version)
    assert answer.returncode == 0, answer.stdout
    unknown = {line.partition("for kind ")[2].split()[0] for line in answer.stdout.splitlines() if line.startswith("WARN")}
    assert unknown == ({"ScaledObject", "TriggerAuthentication"} if values else set())  # KEDA's own
    kinds = [kind for each in documents for kind in re.findall(r"^kind: (\S+)$", each, re.MULTILINE)]
    assert answer.stdout.count(" passed for resource ") == sum(kind not in unknown for kind in kinds) > 20


def test_a_field_that_kubernetes_does_not_know_would_be_found() -> None:
    answer = held_against_schemas([each.replace("serviceName:", "servicename:") for each in rendered()], "1.33")
    assert answer.returncode != 0
    assert "servicename" in answer.stdout


def test_each_worker_is_a_stateful_set_whose_pods_are_static_members() -> None:
    workers = of_kind(rendered(), "StatefulSet")
    assert names(workers) == set(WORKERS)
    assert len(WORKERS) == 7
    for each in workers:
        assert "- name: PAVANE_KAFKA_INSTANCE\n              valueFrom: {fieldRef: {fieldPath: metadata.name}}" in each
        assert "terminationGracePeriodSeconds: 20" in each
        assert "path: /ready" in each
        assert "readOnlyRootFilesystem: true" in each
    assert names(of_kind(rendered(), "PodDisruptionBudget")) == set(WORKERS)


def test_topics_are_applied_before_anything_else_under_a_user_of_their_own() -> None:
    (job,) = of_kind(rendered(*SECURED), "Job")
    assert "helm.sh/hook: pre-install,pre-upgrade" in job
    assert "name: kafka-admin" in job
    assert "kafka-user" not in job


def test_scaling_goes_by_the_lag_of_the_group_and_no_further_than_the_partitions() -> None:
    documents = rendered(*SECURED, "kafka.prefix=prod.", "partitions=9", "workers.approval.scaleOn=null")
    scaled = of_kind(documents, "ScaledObject")
    groups = {line.strip() for each in scaled for line in each.splitlines() if "consumerGroup" in line}
    known = {"coordinator": "pavane.coordinator"}
    assert groups == {f"consumerGroup: prod.{known.get(name, name)}" for name in WORKERS if name != "approval"}
    assert all("maxReplicaCount: 9" in each for each in scaled)
    assert any("topic: prod.credit.score-computed" in each for each in scaled)
    fixed = [each for each in of_kind(documents, "StatefulSet") if "\n  replicas: 1\n" in each]
    assert len(fixed) == 1
    assert "name: demo-approval\n" in fixed[0]


def test_the_values_of_the_page_leave_the_workers_of_the_page(tmp_path: Path) -> None:
    page = (ROOT / "docs/how-to/kubernetes.md").read_text()
    (shown,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    values = tmp_path / "values.yaml"
    values.write_text(shown)
    documents = rendered(str(values))
    assert names(of_kind(documents, "StatefulSet")) == {"coordinator", "payment"}
    assert not any("pavane_credit" in each for each in documents)


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
