"""What every client of Kafka is told: where the brokers are, how to be let in, how patient to be, how much to log.

This module does without aiokafka, so that it can say in plain words that aiokafka is missing or of another version.
"""

import logging
import ssl
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.metadata import PackageNotFoundError, version
from typing import TypedDict

from pavane_events.buses.kafka.options import KafkaOptions
from pavane_events.errors import ConfigurationError, Problem

VERSION = (0, 14)
"""The one minor version of aiokafka that the adapter was tested with: it goes below the public interface."""

METADATA_MAX_AGE_MS = 30_000
CONNECTIONS_MAX_IDLE_MS = 540_000
QUIET_S = 10.0
_TEMPLATES = 500


class ClientArguments(TypedDict):
    """What ``AIOKafkaClient``, ``AIOKafkaConsumer`` and ``AIOKafkaProducer`` take alike. Nothing is left to defaults."""

    bootstrap_servers: str
    client_id: str
    request_timeout_ms: int
    retry_backoff_ms: int
    metadata_max_age_ms: int
    connections_max_idle_ms: int
    security_protocol: str
    ssl_context: ssl.SSLContext | None
    sasl_mechanism: str
    sasl_plain_username: str | None
    sasl_plain_password: str | None


def client_arguments(servers: str, options: KafkaOptions, *, client_id: str = "pavane") -> ClientArguments:
    """The arguments for one client. ``servers``: ``host:port``, several with commas.

    Reads the certificate files, and raises :class:`ConfigurationError` with every one that cannot be used.
    """
    limit_lines()
    return ClientArguments(
        bootstrap_servers=servers,
        client_id=client_id,
        request_timeout_ms=options.request_timeout_ms,
        retry_backoff_ms=options.retry_backoff_ms,
        metadata_max_age_ms=METADATA_MAX_AGE_MS,
        connections_max_idle_ms=CONNECTIONS_MAX_IDLE_MS,
        security_protocol=options.security,
        ssl_context=ssl_context(options) if options.encrypted else None,
        sasl_mechanism=options.mechanism,
        sasl_plain_username=options.username,
        sasl_plain_password=options.password,
    )


def ssl_context(options: KafkaOptions) -> ssl.SSLContext:
    """Brokers are held to their certificate and host name; without a CA file, by the system's authorities."""
    context = ssl.create_default_context()
    problems: list[Problem] = []
    if options.ca_file is not None:
        try:
            context = ssl.create_default_context(cafile=options.ca_file)
        except OSError as error:
            problems.append(_unusable("PAVANE_KAFKA_CA_FILE", error, "it must hold PEM certificates"))
    if options.certificate_file is not None:
        try:
            # an empty password: an encrypted key is an error here, never a prompt
            context.load_cert_chain(options.certificate_file, options.key_file, password="")
        except (OSError, ValueError) as error:
            fix = "both files must be PEM and belong together, the key without a password"
            problems.append(_unusable("PAVANE_KAFKA_CERTIFICATE_FILE", error, fix))
    if problems:
        raise ConfigurationError("the certificates for Kafka cannot be used", problems)
    return context


def check_version() -> None:
    """Refuse to start without aiokafka, or with a version that the adapter was not tested with.

    Raises :class:`ConfigurationError`.
    """
    try:
        found = version("aiokafka")
    except PackageNotFoundError:
        message = "aiokafka is not installed: pip install 'pavane[kafka]'"
        raise ConfigurationError("Kafka needs an extra", [Problem("kafka", "kafka.extra", message)]) from None
    wanted = ".".join(map(str, VERSION))
    if not found.startswith(wanted + "."):
        message = f"aiokafka {found} is installed and the adapter is tested with {wanted} only: pip install 'pavane[kafka]'"
        raise ConfigurationError("this version of aiokafka is not supported", [Problem("kafka", "kafka.version", message)])


def limit_lines() -> None:
    """Let aiokafka repeat itself at most once in :data:`QUIET_S`: a broker that is down is worth thousands of lines."""
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if (name == "aiokafka" or name.startswith("aiokafka.")) and isinstance(logger, logging.Logger):
            logger.addFilter(_LIMIT)  # once, however often it is called


@contextmanager
def quiet() -> Generator[None]:
    """Drop aiokafka's lines of this task while the block lasts: what it would say is raised.

    Tasks that are started in the block are quiet only as long as it.
    """
    block = _Block()
    token = _QUIET.set(block)
    try:
        yield
    finally:
        block.over = True
        _QUIET.reset(token)


class _Block:
    over = False


class LineLimit(logging.Filter):
    """One line per message template and so many seconds; the next one says how many were left out.

    Errors with a traceback count by template, too. Safe to call from any thread.
    """

    def __init__(self, quiet_s: float = QUIET_S) -> None:
        super().__init__()
        self._quiet_s = quiet_s
        self._lock = threading.Lock()
        self._seen: dict[tuple[str, int, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is logged."""
        block = _QUIET.get()
        if block is not None and not block.over:
            return False
        key = (record.name, record.levelno, str(record.msg))
        now = time.monotonic()
        with self._lock:
            since, left_out = self._seen.get(key, (now - self._quiet_s, 0))
            if now - since < self._quiet_s:
                self._seen[key] = (since, left_out + 1)
                return False
            if len(self._seen) >= _TEMPLATES:  # templates with values in them would pile up
                self._seen.clear()
            self._seen[key] = (now, 0)
        if left_out:
            record.msg = f"{record.msg} (and {left_out} more such lines in the last {now - since:.0f} s)"
        return True


_QUIET: ContextVar[_Block | None] = ContextVar("quiet", default=None)
_LIMIT = LineLimit()


def _unusable(where: str, error: Exception, fix: str) -> Problem:
    return Problem(where, "kafka.certificate", f"cannot be used ({error}): {fix}")
