"""Every test of this directory runs once per adapter."""

from pathlib import Path

import pytest

from conformance.deployments import Deployment, KafkaDeployment, MemoryDeployment, SqliteDeployment


@pytest.fixture(params=["memory", "sqlite", "kafka"])
def deployment(request: pytest.FixtureRequest, tmp_path: Path) -> Deployment:
    """A fresh deployment of each adapter in turn."""
    if request.param == "memory":
        return MemoryDeployment()
    if request.param == "kafka":
        return KafkaDeployment(request.getfixturevalue("kafka").servers)
    return SqliteDeployment(tmp_path / "bus.db")
