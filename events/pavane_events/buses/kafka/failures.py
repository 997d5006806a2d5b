"""What Kafka's error codes mean for us, and their translation to the platform's errors."""

from collections.abc import Mapping

from aiokafka import errors
from aiokafka.errors import KafkaError

from pavane_events.errors import BusError, BusUnavailable, ConfigurationError, Problem

TOO_LARGE = frozenset({10, 18})
"""MESSAGE_TOO_LARGE, RECORD_LIST_TOO_LARGE."""

UNKNOWN_TOPIC = 3
LEADER_NOT_AVAILABLE = 5
TOPIC_FORBIDDEN = 29
UNKNOWN_MEMBER = frozenset({25, 82})
"""UNKNOWN_MEMBER_ID, FENCED_INSTANCE_ID: this member was put out of its group."""

STALE_GENERATION = frozenset({22, 27})
"""ILLEGAL_GENERATION, REBALANCE_IN_PROGRESS: the group moved on; the member may have a place in it."""

FENCED = frozenset({47, 90})
"""INVALID_PRODUCER_EPOCH, PRODUCER_FENCED."""

CONCURRENT_TRANSACTIONS = 51
NOT_ATTEMPTED = 55
"""A partition was not added to a transaction, because of another one in the same request."""

DUPLICATE_SEQUENCE = 46
"""The batch is there already."""

COORDINATOR_MOVED = frozenset({15, 16})
LEADER_MOVED = frozenset({5, 6, 74, 75, 76})
"""LEADER_NOT_AVAILABLE, NOT_LEADER, FENCED_LEADER_EPOCH, UNKNOWN_LEADER_EPOCH, UNSUPPORTED_... : ask for metadata anew."""

PASSING = frozenset({7, 9, 13, 14, 15, 16, 19, 20, 51, 56, 59, 88}) | LEADER_MOVED
"""Codes that go away by waiting."""

_AUTHENTICATION = (
    errors.AuthenticationFailedError,
    errors.SaslAuthenticationFailed,
    errors.UnsupportedSaslMechanismError,
    errors.IllegalSaslStateError,
)
_LOGIN = "check PAVANE_KAFKA_SECURITY, PAVANE_KAFKA_MECHANISM, PAVANE_KAFKA_USERNAME and the password"
_FIXES: Mapping[object, str] = {
    29: "grant this user Read and Write on the topics of this prefix",
    30: "grant this user Read on the groups of this prefix",
    31: "grant this user the right, or let `pavane topics apply` run under one who has it",
    53: "grant this user Write on the transactional ids of this prefix",
    58: _LOGIN,
}
"""By the codes of what is forbidden. The rights are those of docs/reference/topics.md."""


class Refused(Exception):
    """A broker refused a request with a code that waiting does not mend. ``topic``: what it was about, where it was one."""

    def __init__(self, code: int, request: str, topic: str | None = None) -> None:
        self.code = code
        self.topic = topic
        about = f" ({topic})" if topic is not None else ""
        super().__init__(f"{request}{about}: {errors.for_code(code).__name__} ({code})")


def translated(error: BaseException, doing: str) -> BusError | ConfigurationError:
    """Our error for one of Kafka's."""
    code = error.code if isinstance(error, Refused) else getattr(error, "errno", None)
    if isinstance(error, _AUTHENTICATION) or code in _FIXES:
        fix = _LOGIN if isinstance(error, _AUTHENTICATION) else _FIXES[code]
        problem = Problem("kafka", "kafka.forbidden", f"{error!s} ({type(error).__name__}); {fix}")
        return ConfigurationError(f"Kafka refuses {doing}", [problem])
    if isinstance(error, KafkaError | Refused | TimeoutError | OSError):
        return BusUnavailable(f"Kafka cannot be reached for {doing}: {error!r}")
    return BusError(f"{doing} failed: {error!r}")
