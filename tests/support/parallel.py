"""Several test processes: what a module prepares for many of its tests, in minutes, is prepared by one of them.

A worker of pytest-xdist prepares whatever its tests need, so tests that need the same go to one worker, and they go first.
"""

import re

import pytest
from xdist.remote import Producer
from xdist.scheduler.loadscope import LoadScopeScheduling
from xdist.scheduler.protocol import Scheduling

_PREPARED = re.compile(r"(test_jaeger|test_jaeger_kills)\.py::\w+\[(sqlite|kafka)\]$")


class PreparedOnce(LoadScopeScheduling):
    """Test by test, but for those of a thousand sagas on a bus of one kind."""

    def _split_scope(self, nodeid: str) -> str:
        found = _PREPARED.search(nodeid)
        return found.expand(r"\1 on \2") if found else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling | None:
    """Unless ``--dist`` asks for another one."""
    return PreparedOnce(config, log) if config.getoption("dist") == "load" else None
