"""Every test of this directory runs once per adapter."""

from pathlib import Path

import pytest

from conformance.deployments import Deployment, MemoryDeployment, SqliteDeployment


@pytest.fixture(params=["memory", "sqlite"])
def deployment(request: pytest.FixtureRequest, tmp_path: Path) -> Deployment:
    """A fresh deployment of each adapter in turn."""
    if request.param == "memory":
        return MemoryDeployment()
    return SqliteDeployment(tmp_path / "bus.db")
