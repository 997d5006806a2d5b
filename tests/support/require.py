"""Require: a test that needs a real server gets it or is skipped with the reason; where CI demands it, a skip is a failure.

``PAVANE_REQUIRE=kafka,jaeger`` names the servers that must be there.
"""

import os
from typing import NoReturn

import pytest

REQUIRE = "PAVANE_REQUIRE"
SERVERS = frozenset({"kafka", "jaeger", "mlflow", "helm", "docker"})
"""What may be required; ``helm`` is a program. ``docker`` is for tests of containers themselves; the others need none."""


def unavailable(server: str, reason: str) -> NoReturn:
    """End the running test or fixture: there is no such server, for this reason.

    A skip, or a failure where ``PAVANE_REQUIRE`` names the server. ``reason`` says in plain words what was tried and
    what to install or start.
    """
    assert server in SERVERS, f"{server!r} is no server that tests ask for: {', '.join(sorted(SERVERS))}"
    if server in required():
        pytest.fail(f"{REQUIRE} demands {server}, and it is not to be had: {reason}", pytrace=False)
    pytest.skip(f"no {server}: {reason}")


def required() -> frozenset[str]:
    """The servers that must be there. A name that nobody knows is an error: it would demand nothing, silently."""
    names = frozenset(filter(None, (name.strip() for name in os.environ.get(REQUIRE, "").split(","))))
    if names - SERVERS:
        unknown = ", ".join(sorted(names - SERVERS))
        raise pytest.UsageError(f"{REQUIRE} names {unknown}; tests ask for {', '.join(sorted(SERVERS))}")
    return names
