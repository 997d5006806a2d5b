"""Every test of this directory runs once per adapter."""

from pathlib import Path

import pytest

from conformance.deployments import (
    Deployment,
    KafkaDeployment,
    MeasuredDeployment,
    MemoryDeployment,
    SqliteDeployment,
)


@pytest.fixture(params=["memory", "measured", "sqlite", "kafka"])
def deployment(request: pytest.FixtureRequest, tmp_path: Path) -> Deployment:
    """A fresh deployment of each adapter in turn."""
    if request.param == "measured":
        return MeasuredDeployment()
    if request.param == "memory":
        return MemoryDeployment()
    if request.param == "kafka":
        return KafkaDeployment(request.getfixturevalue("kafka").servers)
    return SqliteDeployment(tmp_path / "bus.db")
