"""The settings of the Kafka bus: one ``PAVANE_KAFKA_`` variable for each option, and a file for the password."""

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings

from pavane_events.buses.kafka.options import KafkaOptions, Mechanism, Security
from pavane_events.errors import Problem

_DEFAULT = KafkaOptions()


class KafkaSettings(BaseSettings):
    """The part of :class:`~pavane.settings.Settings` that is about Kafka."""

    kafka_prefix: str = Field(
        default=_DEFAULT.prefix, description="stands before every topic, group and transactional id on the brokers"
    )
    kafka_replication: int | None = Field(
        default=_DEFAULT.replication, ge=1, le=100, description="copies of each new topic; unset: the brokers' default"
    )
    kafka_retention_days: float = Field(
        default=_DEFAULT.retention_days,
        gt=0,
        le=36_500,
        description="how long events and control records are kept; more than the longest saga lives",
    )
    kafka_security: Security = Field(
        default=_DEFAULT.security, description="PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL, as the brokers' listener has it"
    )
    kafka_mechanism: Mechanism = Field(
        default=_DEFAULT.mechanism, description="with SASL: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"
    )
    kafka_username: str | None = Field(default=None, description="with SASL: the user")
    kafka_password: SecretStr | None = Field(default=None, description="with SASL: the password; never printed")
    kafka_password_file: Path | None = Field(
        default=None, description="a file that holds the password, instead of PAVANE_KAFKA_PASSWORD"
    )
    kafka_ca_file: Path | None = Field(
        default=None, description="with SSL: PEM authorities that the brokers are held to; unset: the system's"
    )
    kafka_certificate_file: Path | None = Field(default=None, description="with SSL: this client's PEM certificate")
    kafka_key_file: Path | None = Field(
        default=None, description="with SSL: its PEM key, without a password; unset: in the certificate's file"
    )
    kafka_instance: str | None = Field(
        default=None, description="a name of this process that survives its restart: its lanes wait for it (static membership)"
    )
    kafka_session_ms: int = Field(
        default=_DEFAULT.session_ms, ge=1_000, le=1_800_000, description="silence after which a member's lanes go to others"
    )
    kafka_heartbeat_ms: int = Field(
        default=_DEFAULT.heartbeat_ms, ge=100, description="between two heartbeats; at most a third of the session"
    )
    kafka_fetch_wait_ms: int = Field(
        default=_DEFAULT.fetch_wait_ms, ge=1, le=10_000, description="how long a broker may hold a fetch that finds nothing"
    )
    kafka_request_timeout_ms: int = Field(
        default=_DEFAULT.request_timeout_ms, ge=500, le=300_000, description="after so long a request has failed"
    )
    kafka_transaction_timeout_ms: int = Field(
        default=_DEFAULT.transaction_timeout_ms,
        ge=1_000,
        le=900_000,
        description="after so long the brokers abort the transaction of a process that fell silent",
    )
    kafka_retry_backoff_ms: int = Field(
        default=_DEFAULT.retry_backoff_ms, ge=1, le=10_000, description="pause before a request is sent again"
    )
    kafka_commit_records: int = Field(
        default=_DEFAULT.commit_records,
        ge=1,
        le=100_000,
        description="commits share a transaction up to so many records; a larger one has its own",
    )
    kafka_pace: float = Field(
        default=_DEFAULT.pace, ge=0, le=100, description="under load, commit no sooner than so many times the last commit took"
    )
    kafka_state_dir: Path | None = Field(
        default=None, description="where lane state goes that does not fit into memory; unset: where temporary files go"
    )

    def kafka_options(self) -> KafkaOptions:
        """The options as the adapter takes them. Reads the password's file anew, or leaves the password out."""
        names = [field.name for field in fields(KafkaOptions) if field.name != "password"]
        return KafkaOptions(**{name: getattr(self, f"kafka_{name}") for name in names}, password=self._password())

    def kafka_problems(self) -> list[Problem]:
        """Every Kafka setting that does not go with the others."""
        of_file = list(self._problems_of_password_file())
        return of_file + [each for each in self.kafka_options().problems() if not of_file or each.code != "kafka.password"]

    def _password(self) -> str | None:
        if self.kafka_password is not None:
            return self.kafka_password.get_secret_value()
        try:
            return self.kafka_password_file.read_text().rstrip("\r\n") if self.kafka_password_file is not None else None
        except (OSError, UnicodeDecodeError):
            return None

    def _problems_of_password_file(self) -> Iterator[Problem]:
        where, path = "PAVANE_KAFKA_PASSWORD_FILE", self.kafka_password_file
        if path is None:
            return
        if self.kafka_password is not None:
            yield Problem(where, "kafka.password-twice", "PAVANE_KAFKA_PASSWORD is set, too: keep one of them")
            return
        try:
            if not path.read_text().strip():
                yield Problem(where, "kafka.password-file", f"{path} is empty")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text"
            yield Problem(where, "kafka.password-file", f"{path} cannot be read: {reason}")
