"""Options of the Kafka adapter: everything that may be set, and everything that a deployment prefixes."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pavane_events.errors import Problem
from pavane_events.topics import TopicRules

Security = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]

_LEGAL = re.compile(r"[A-Za-z0-9._-]{0,100}")
_SETTING = "PAVANE_KAFKA_"


@dataclass(frozen=True, slots=True)
class KafkaOptions:
    """How to reach the brokers, and how patient to be with members that fall silent.

    ``prefix``: stands before every topic, group and transactional id on the brokers, so that deployments can share a
    cluster; inside, nobody sees it. ``replication``: of topics that are made here; None: the brokers' default.
    ``retention_days``: how long events and control records are kept; more than the longest saga lives.
    ``session_ms``: after so long without a heartbeat a member's lanes go to others (brokers allow 6,000 to 1,800,000
    unless told otherwise). ``commit_records``: commits share a transaction up to so many records of outputs
    and state; one that alone has more is a transaction of its own.
    ``pace``: under load a commit begins no sooner than so many times the last one's duration after it began.
    ``instance``: a name of this process that survives its restart (static membership): its lanes wait for it.
    ``state_dir``: where lane state goes that does not fit into memory; None: where temporary files go.
    """

    prefix: str = ""
    replication: int | None = None
    retention_days: float = 30.0
    security: Security = "PLAINTEXT"
    mechanism: Mechanism = "SCRAM-SHA-512"
    username: str | None = None
    password: str | None = None
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    instance: str | None = None
    session_ms: int = 10_000
    heartbeat_ms: int = 1_000
    fetch_wait_ms: int = 50
    request_timeout_ms: int = 5_000
    transaction_timeout_ms: int = 10_000
    retry_backoff_ms: int = 20
    commit_records: int = 500
    pace: float = 1.5
    state_dir: Path | None = None

    def __repr__(self) -> str:
        return f"KafkaOptions(prefix={self.prefix!r}, security={self.security!r})"  # never a password

    @property
    def encrypted(self) -> bool:
        """Whether connections use TLS."""
        return self.security in ("SSL", "SASL_SSL")

    @property
    def authenticated(self) -> bool:
        """Whether user name and password are sent."""
        return self.security in ("SASL_PLAINTEXT", "SASL_SSL")

    @property
    def topic_rules(self) -> TopicRules:
        """What topics that are made here have in common."""
        return TopicRules(prefix=self.prefix, replication=self.replication, retention_days=self.retention_days)

    def physical(self, name: str) -> str:
        """A topic's or group's name on the brokers."""
        return self.prefix + name

    def logical(self, name: str) -> str | None:
        """The name inside of what has this name on the brokers; None where it is not this deployment's."""
        return name.removeprefix(self.prefix) if name.startswith(self.prefix) and name != self.prefix else None

    def problems(self) -> list[Problem]:
        """Everything that does not go together, each under the name of its setting."""
        return [*self._of_security(), *self._of_files(), *self._of_names(), *self._of_times()]

    def _of_security(self) -> Iterator[Problem]:
        if self.authenticated:
            if not self.username:
                yield _problem("username", "kafka.username", f"{self.security} needs a user name")
            if not self.password:
                fix = f"{self.security} needs a password: set it here, or a file that holds it in {_SETTING}PASSWORD_FILE"
                yield _problem("password", "kafka.password", fix)
        elif self.username or self.password:
            which = "username" if self.username else "password"
            stronger = "SASL_SSL" if self.encrypted else "SASL_SSL (or SASL_PLAINTEXT)"
            fix = f"{self.security} would not send it: set {_SETTING}SECURITY={stronger}, or leave it out"
            yield _problem(which, "kafka.unused", fix)

    def _of_files(self) -> Iterator[Problem]:
        files = {"ca_file": self.ca_file, "certificate_file": self.certificate_file, "key_file": self.key_file}
        for name, path in files.items():
            if path is None:
                continue
            if not self.encrypted:
                fix = f"{self.security} is not encrypted: set {_SETTING}SECURITY=SSL or SASL_SSL, or leave it out"
                yield _problem(name, "kafka.unused", fix)
            elif not path.is_file():
                yield _problem(name, "kafka.file", f"there is no file {path}")
        if self.key_file is not None and self.certificate_file is None:
            fix = f"a key is of no use without its certificate: set {_SETTING}CERTIFICATE_FILE"
            yield _problem("key_file", "kafka.unused", fix)
        if self.state_dir is not None and not os.access(self.state_dir, os.W_OK | os.X_OK):
            yield _problem("state_dir", "kafka.state-dir", f"{self.state_dir} is no directory that can be written to")

    def _of_names(self) -> Iterator[Problem]:
        for name, text in {"prefix": self.prefix, "instance": self.instance or ""}.items():
            if not _LEGAL.fullmatch(text):
                yield _problem(name, "kafka.name", "Kafka takes at most 100 of A-Z a-z 0-9 . _ - here")

    def _of_times(self) -> Iterator[Problem]:
        if self.heartbeat_ms * 3 > self.session_ms:
            fix = f"three heartbeats must fit into a session: at most {self.session_ms // 3}, or raise {_SETTING}SESSION_MS"
            yield _problem("heartbeat_ms", "kafka.heartbeat", fix)
        if self.fetch_wait_ms * 2 > self.request_timeout_ms:
            fix = f"a fetch must answer well within {_SETTING}REQUEST_TIMEOUT_MS: at most {self.request_timeout_ms // 2}"
            yield _problem("fetch_wait_ms", "kafka.fetch-wait", fix)
        if self.transaction_timeout_ms < self.request_timeout_ms:
            fix = f"a transaction must outlive one request: at least {self.request_timeout_ms} ({_SETTING}REQUEST_TIMEOUT_MS)"
            yield _problem("transaction_timeout_ms", "kafka.transaction-timeout", fix)


def _problem(option: str, code: str, message: str) -> Problem:
    return Problem(_SETTING + option.upper(), code, message)
