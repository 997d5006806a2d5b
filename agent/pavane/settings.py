"""Settings: one root, read from ``PAVANE_`` variables; a variable that nobody knows is an error, not a surprise."""

import difflib
import os
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import SettingsConfigDict

from pavane.kafka_settings import KafkaSettings
from pavane_events.errors import ConfigurationError, Problem
from pavane_tracing.edges import edges_of
from pavane_tracing.options import TracingOptions

_PREFIX = "PAVANE_"
_OTHERS = frozenset({"PAVANE_CACHE", "PAVANE_REQUIRE", "PAVANE_KAFKA", "PAVANE_JAEGER", "PAVANE_CHAOS"})
"""Variables of `pavane dev` and of the project's own tests."""


class Settings(KafkaSettings):
    """What a process is told from outside. ``OTEL_*`` variables are OpenTelemetry's own."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, extra="forbid", frozen=True)

    bus: str = Field(
        default="sqlite:///pavane.db",
        description="the bus: sqlite:///FILE (relative), sqlite:////FILE (absolute) or kafka://HOST:PORT,HOST:PORT",
    )
    deployment: str = Field(default="pavane", min_length=1, description="part of every idempotency key: one per installation")
    partitions: int | None = Field(
        default=None, ge=1, le=256, description="lanes per agent, chosen when the bus is made; unset: what the bus has, else 4"
    )
    synchronous: Literal["NORMAL", "FULL"] = Field(
        default="NORMAL",
        description="FULL survives power loss, NORMAL survives kill -9 and loses the last moments to power loss",
    )
    trace: bool = Field(default=True, description="spans to the OTEL_ endpoint, else into the embedded bus")
    tracer: Literal["lean", "sdk"] = Field(
        default="lean",
        description="lean, or sdk: OpenTelemetry's stock SDK makes our own spans, too, at several times the cost",
    )
    trace_keep: Literal["sampled", "failed"] = Field(
        default="sampled", description="failed: a saga that a sampler left out is exported after all where it fails"
    )
    trace_edges: str = Field(
        default="",
        description="where a trace goes on and where a new, linked one begins: EDGE=continue or EDGE=new_linked, with commas",
    )
    trace_spool: str | None = Field(
        default=None,
        min_length=1,
        description="where spans wait while no collector takes them: a directory; unset: in memory",
    )
    trace_spool_mb: int = Field(default=256, ge=1, description="the most that may wait there, in MiB; what is more is lost")
    jaeger_url: str | None = Field(
        default=None,
        pattern=r"^https?://[^/]",
        description="the query address of a Jaeger, as in http://127.0.0.1:16686: links to traces, trees of exported spans",
    )
    concurrency: int = Field(default=64, ge=1, description="handlers running at once, per lane")
    drain_s: float = Field(default=10.0, ge=0, description="seconds that a graceful stop waits for running work")
    health_port: int | None = Field(
        default=None, ge=1, le=65_535, description="serve /live and /ready on this port; unset: not at all"
    )
    log: Literal["debug", "info", "warning", "error"] = Field(
        default="warning", description="the least severe lines to be logged"
    )

    @field_validator("trace_edges")
    @classmethod
    def _are_edges(cls, text: str) -> str:
        edges_of(text)
        return text

    @field_validator("jaeger_url")
    @classmethod
    def _can_be_asked(cls, url: str | None) -> str | None:
        if url is not None:
            _check_address(url)
        return url

    def tracing_options(self) -> TracingOptions:
        """How this process traces."""
        spool = Path(self.trace_spool) if self.trace_spool is not None else None
        return TracingOptions(
            tracer=self.tracer,
            unsampled="held" if self.trace_keep == "failed" else "dropped",
            spool=spool,
            spool_bytes=self.trace_spool_mb * 1024 * 1024,
            new_linked=edges_of(self.trace_edges),
        )


def _check_address(url: str) -> None:
    """Whether requests can be made to it, as far as can be told without asking. Raises ValueError."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        host.encode("idna")  # as the name is looked up
        good = bool(host) and parts.port != 0 and url.isprintable() and " " not in url
    except ValueError:
        good = False
    if not good:
        raise ValueError("it is no address: use a host, and a port, as in http://127.0.0.1:16686") from None


def load_settings(**overrides: object) -> Settings:
    """Settings from the environment, under overrides that are not None. Raises :class:`ConfigurationError`, all at once."""
    known = {_PREFIX + name.upper() for name in Settings.model_fields}
    problems: list[Problem] = []
    for name in sorted(os.environ):
        if name.startswith(_PREFIX) and name.upper() not in known | _OTHERS:
            near = difflib.get_close_matches(name.upper(), known, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(known))}"
            problems.append(Problem(name, "setting.unknown", f"no such setting; {hint}"))
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        settings = Settings.model_validate({**Settings().model_dump(), **given})
    except ValidationError as error:
        for each in error.errors(include_url=False, include_input=False, include_context=False):
            where = ".".join(str(part) for part in each["loc"])
            problems.append(Problem(_PREFIX + where.upper(), each["type"], each["msg"]))
        raise ConfigurationError("the settings are wrong", problems) from None
    problems += settings.kafka_problems()
    if problems:
        raise ConfigurationError("the settings are wrong", problems)
    return settings
