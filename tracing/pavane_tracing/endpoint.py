"""The OTLP endpoint that the standard variables name, and one request to it. Source:
https://opentelemetry.io/docs/specs/otel/protocol/exporter/
"""

import gzip
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from time import time
from typing import Any

import requests
from opentelemetry.util.re import parse_env_headers

from pavane_events.errors import ConfigurationError, Problem

_PASSING = frozenset({429, 502, 503, 504})
"""Answers after which a request may be made again, by OTLP's rules."""
_PATH = "v1/traces"
_DEFAULT_ENDPOINT = "http://localhost:4318"
_DEFAULT_TIMEOUT_S = 10.0
_MOST_DETAIL = 200
_USER_AGENT = "pavane-otlp"


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a request: ``taken``; else ``again_s`` seconds later or never (None), and why."""

    taken: bool
    why: str = ""
    again: bool = False
    again_s: float | None = None
    rejected: int = 0
    """Spans that the endpoint left out, though it took the request."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where spans are sent by HTTP, and how. ``compression`` is ``gzip``, ``deflate`` or None."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    compression: str | None = None
    timeout_s: float = _DEFAULT_TIMEOUT_S
    certificate: str | None = None
    client_certificate: str | None = None
    client_key: str | None = None

    def connect(self) -> "Connection":
        """For one thread, with the endpoint's headers and certificates, and the process's proxies as of its first request."""
        session = requests.Session()
        session.headers.update({"User-Agent": _USER_AGENT, "Content-Type": "application/x-protobuf", **self.headers})
        if self.compression is not None:
            session.headers["Content-Encoding"] = self.compression
        if self.certificate is not None:
            session.verify = self.certificate
        if self.client_certificate is not None:
            session.cert = (self.client_certificate, self.client_key) if self.client_key else self.client_certificate
        return Connection(self, session)

    def packed(self, body: bytes) -> bytes:
        """A body, compressed as the endpoint wants it."""
        if self.compression == "gzip":
            return gzip.compress(body, 1, mtime=0)
        return zlib.compress(body, 1) if self.compression == "deflate" else body


class Connection:
    """Requests to an endpoint, one after the other. What all have in common is put together once, for that is slow, and they
    go to the session's adapter: no cookies, no redirects, no hooks."""

    def __init__(self, endpoint: Endpoint, session: requests.Session) -> None:
        self.session = session
        self._endpoint = endpoint
        self._prepared: requests.PreparedRequest | None = None
        self._settings: Mapping[str, Any] = {}

    def send(self, body: bytes) -> Answer:
        """Send an export request once; blocks for the timeout at most. Never raises."""
        endpoint = self._endpoint
        try:
            request = self._request()
            request.prepare_body(endpoint.packed(body), None)
            adapter = self.session.get_adapter(endpoint.url)
            response = adapter.send(request, timeout=endpoint.timeout_s, **self._settings)
            answer = response.content
        except (requests.RequestException, OSError) as error:
            return Answer(False, _detail(error), again=True)
        if response.ok:
            return Answer(True, rejected=_rejected(answer))
        why = f"{endpoint.url} answered {response.status_code} {response.reason}"
        if response.status_code not in _PASSING:
            return Answer(False, why)
        return Answer(False, why, again=True, again_s=_retry_after(response.headers.get("Retry-After")))

    def close(self) -> None:
        """End it."""
        self.session.close()

    def _request(self) -> requests.PreparedRequest:
        if self._prepared is None:
            url = self._endpoint.url
            self._settings = self.session.merge_environment_settings(url, {}, None, None, None)
            self._prepared = self.session.prepare_request(requests.Request("POST", url))
        return self._prepared.copy()


def endpoint_of(variables: Mapping[str, str]) -> Endpoint:
    """The endpoint for traces. Raises :class:`ConfigurationError` with every variable that cannot be followed."""
    problems: list[Problem] = []

    def setting(name: str) -> str:
        own = variables.get(f"OTEL_EXPORTER_OTLP_TRACES_{name}", "").strip()
        return own or variables.get(f"OTEL_EXPORTER_OTLP_{name}", "").strip()

    compression = setting("COMPRESSION").lower()
    if compression not in ("", "none", "gzip", "deflate"):
        problems.append(Problem("OTEL_EXPORTER_OTLP_COMPRESSION", "tracing.compression", "use gzip, deflate or none"))
    timeout = setting("TIMEOUT")
    timeout_s = _positive(timeout) if timeout else _DEFAULT_TIMEOUT_S
    if timeout_s is None:
        problems.append(Problem("OTEL_EXPORTER_OTLP_TIMEOUT", "tracing.timeout", "use a number of seconds above 0"))
    if problems:
        raise ConfigurationError("tracing cannot be set up", problems)
    return Endpoint(
        url=_url(variables),
        headers=parse_env_headers(setting("HEADERS"), liberal=True),
        compression=compression if compression in ("gzip", "deflate") else None,
        timeout_s=timeout_s or _DEFAULT_TIMEOUT_S,
        certificate=setting("CERTIFICATE") or None,
        client_certificate=setting("CLIENT_CERTIFICATE") or None,
        client_key=setting("CLIENT_KEY") or None,
    )


def _url(variables: Mapping[str, str]) -> str:
    own = variables.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "").strip()
    base = variables.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip() or _DEFAULT_ENDPOINT
    return own or f"{base.removesuffix('/')}/{_PATH}"


def _positive(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if 0 < number < float("inf") else None


def _retry_after(header: str | None) -> float | None:
    """Seconds, or a date; None where it is neither."""
    if header is None:
        return None
    seconds = _positive(header)
    if seconds is not None:
        return seconds
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time())
    except ValueError:
        return None


def _rejected(body: bytes) -> int:
    if not body:
        return 0
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    try:
        return int(ExportTraceServiceResponse.FromString(body).partial_success.rejected_spans)
    except Exception:  # protobuf's DecodeError, which has no types: it is some proxy's page
        return 0


def _detail(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:_MOST_DETAIL]
