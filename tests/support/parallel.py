"""Several test processes: what a module prepares for many of its tests, in minutes, is prepared by one of them.

A worker of pytest-xdist prepares whatever its tests need, so tests that need the same go to one worker, and they go first.
Every other worker begins with the last tests: what takes a machine to itself (brokers that die and freeze) is at the front,
and two of it at a time slow each other down.
"""

import re

import pytest
from xdist.remote import Producer
from xdist.scheduler.loadscope import LoadScopeScheduling
from xdist.scheduler.protocol import Scheduling
from xdist.workermanage import WorkerController

_PREPARED = re.compile(r"(test_jaeger|test_jaeger_kills)\.py::\w+\[(sqlite|kafka)\]$")


class PreparedOnce(LoadScopeScheduling):
    """Test by test from both ends, but for those of a thousand sagas on a bus of one kind."""

    def _split_scope(self, nodeid: str) -> str:
        found = _PREPARED.search(nodeid)
        return found.expand(r"\1 on \2") if found else nodeid

    def _assign_work_unit(self, node: WorkerController) -> None:
        if self.nodes.index(node) % 2:
            self.workqueue.move_to_end(next(reversed(self.workqueue)), last=False)
        super()._assign_work_unit(node)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling | None:
    """Unless ``--dist`` asks for another one."""
    return PreparedOnce(config, log) if config.getoption("dist") == "load" else None
