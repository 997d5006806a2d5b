"""The OTLP endpoint that the standard variables name, and one request to it. Source:
https://opentelemetry.io/docs/specs/otel/protocol/exporter/
"""

import gzip
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from time import monotonic, time
from typing import Any
from urllib.parse import urlsplit

import requests
from opentelemetry.util.re import parse_env_headers
from urllib3.exceptions import ProtocolError

from pavane_events.errors import ConfigurationError, Problem
from pavane_tracing.wire import Wire, WiredAdapter

_PASSING = frozenset({429, 502, 503, 504})
"""Answers after which a request may be made again, by OTLP's rules."""
_TOO_LARGE = 413
_AS_IT_IS = frozenset({400, _TOO_LARGE})
"""Refusals that may be of one span, or of the size."""
_PATH = "v1/traces"
_DEFAULT_ENDPOINT = "http://localhost:4318"
_DEFAULT_TIMEOUT_S = 10.0
_LONGEST_TIMEOUT_S = 3_600.0
_MOST_DETAIL = 200
_MOST_READ = 16 * 1024
"""Bytes of an answer: a collector's has some dozens, a proxy's page may have any number."""
_USER_AGENT = "pavane-otlp"
_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
"""As RFC 9110 has them, in section 5."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a request: ``taken``, and what the endpoint says to that; else ``again_s`` seconds later or never (None),
    and why.

    ``reached``: the endpoint heard of it, so that it may be this one request that it does not take.
    """

    taken: bool
    why: str = ""
    again: bool = False
    again_s: float | None = None
    reached: bool = True
    parts: bool = False
    """Whether the endpoint may take parts of what it refuses as a whole."""
    too_large: bool = False
    """Whether that is why it refuses it."""
    rejected: int = 0
    """Spans that the endpoint left out, though it took the request; it may say any number."""


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
        for scheme in ("http://", "https://"):
            session.mount(scheme, WiredAdapter())
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
        self._wire = Wire()

    def send(self, body: bytes) -> Answer:
        """Send an export request once; blocks for the timeout at most, unless the answer dribbles: see :meth:`cut`.

        Never raises: whatever keeps the request from being sent, the thread that sends must live, and it may be over later.
        """
        self._wire.lay()
        try:
            return self._answer(body)
        except Exception as error:  # libraries' own, and Python's: of a name, a header, a proxy's address
            late = f"{self._endpoint.url} has not answered within {self._endpoint.timeout_s:g} s"
            return Answer(False, late if self._wire.is_cut else _detail(error), again=True, reached=_reached(error))

    def _answer(self, body: bytes) -> Answer:
        endpoint = self._endpoint
        until = monotonic() + endpoint.timeout_s
        request = self._request()
        request.prepare_body(endpoint.packed(body), None)
        adapter = self.session.get_adapter(endpoint.url)
        response = adapter.send(request, timeout=endpoint.timeout_s, **self._settings)
        answer = _beginning(response, until)
        if 200 <= response.status_code < 300:
            rejected, said = _partial_success(answer)
            return Answer(True, said[:_MOST_DETAIL], rejected=rejected)
        why = f"{endpoint.url} answered {response.status_code} {response.reason}"
        if 300 <= response.status_code < 400:
            why += f", and that it is to be found at {response.headers.get('Location', '')[:_MOST_DETAIL]!r}"
        if response.status_code not in _PASSING:
            status = response.status_code
            return Answer(False, why, parts=status in _AS_IT_IS, too_large=status == _TOO_LARGE)
        return Answer(False, why, again=True, again_s=_retry_after(response.headers.get("Retry-After")))

    def cut(self) -> None:
        """Have :meth:`send` end now. From any thread."""
        self._wire.cut()

    def close(self) -> None:
        """End it."""
        self.session.close()

    def _request(self) -> requests.PreparedRequest:
        if self._prepared is None:
            url, session = self._endpoint.url, self.session
            self._settings = session.merge_environment_settings(url, {}, None, session.verify, session.cert)
            self._prepared = session.prepare_request(requests.Request("POST", url))
            self._prepared.headers.update(self._endpoint.headers)  # over those of a netrc, or of the address
        return self._prepared.copy()


def endpoint_of(variables: Mapping[str, str]) -> Endpoint:
    """The endpoint for traces. Raises :class:`ConfigurationError` with every variable that cannot be followed."""
    problems: list[Problem] = []

    def setting(name: str) -> tuple[str, str]:
        """The variable that counts, and what it says."""
        own, common = f"OTEL_EXPORTER_OTLP_TRACES_{name}", f"OTEL_EXPORTER_OTLP_{name}"
        counts = own if variables.get(own, "").strip() else common
        return counts, variables.get(counts, "").strip()

    def file(name: str) -> str | None:
        variable, path = setting(name)
        if path and not Path(path).exists():
            problems.append(Problem(variable, "tracing.file", f"there is no file {path}"))
        return path or None

    variable, compression = setting("COMPRESSION")
    if compression.lower() not in ("", "none", "gzip", "deflate"):
        problems.append(Problem(variable, "tracing.compression", "use gzip, deflate or none"))
    variable, timeout = setting("TIMEOUT")
    timeout_s = _positive(timeout) if timeout else _DEFAULT_TIMEOUT_S
    if timeout_s is None or timeout_s > _LONGEST_TIMEOUT_S:
        message = f"use a number of seconds above 0, and {_LONGEST_TIMEOUT_S:g} at most"
        problems.append(Problem(variable, "tracing.timeout", message))
    variable, address = setting("ENDPOINT")
    url = address if variable.endswith("_TRACES_ENDPOINT") else f"{(address or _DEFAULT_ENDPOINT).removesuffix('/')}/{_PATH}"
    if not _can_be_asked(address or url):
        message = "it is no address to send to: use http:// or https://, a host, and a port, as in http://localhost:4318"
        problems.append(Problem(variable, "tracing.endpoint", message))
    variable, said = setting("HEADERS")
    headers = parse_env_headers(said, liberal=True)
    problems += (Problem(variable, "tracing.headers", message) for message in _not_carried(headers))
    certificate, client_certificate, client_key = file("CERTIFICATE"), file("CLIENT_CERTIFICATE"), file("CLIENT_KEY")
    if problems:
        raise ConfigurationError("tracing cannot be set up", problems)
    return Endpoint(
        url=url,
        headers=headers,
        compression=compression.lower() if compression.lower() in ("gzip", "deflate") else None,
        timeout_s=timeout_s or _DEFAULT_TIMEOUT_S,
        certificate=certificate,
        client_certificate=client_certificate,
        client_key=client_key,
    )


def _can_be_asked(url: str) -> bool:
    """Whether requests can be made to it, as far as can be told without asking."""
    if not url.lower().startswith(("http://", "https://")):
        return False
    try:
        prepared = requests.Request("POST", url).prepare()
        host = urlsplit(prepared.url or "").hostname or ""
        host.encode("idna")  # as the name is looked up
    except (requests.RequestException, ValueError):
        return False
    return bool(host)


def _not_carried(headers: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with each header that HTTP cannot carry; values may be secrets."""
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            yield f"{name!r} cannot be a header's name: use letters, digits and hyphens"
        if not _HEADER_VALUE.fullmatch(value):
            yield f"HTTP cannot carry the value of {name!r}: use printable characters of Latin-1"


def _positive(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if 0 < number < float("inf") else None


def _beginning(response: requests.Response, until: float) -> bytes:
    """The beginning of an answer's body, as far as it comes in time. What became of the request is said by the status."""
    body = bytearray()
    try:
        for part in response.iter_content(1):
            body += part
            if len(body) >= _MOST_READ or monotonic() >= until:
                response.close()
                break
    except requests.RequestException:
        response.close()
    return bytes(body)


def _retry_after(header: str | None) -> float | None:
    """Seconds, or a date; None where it is neither, or is over."""
    if header is None:
        return None
    seconds = _positive(header)
    if seconds is not None:
        return seconds
    try:
        left = parsedate_to_datetime(header).timestamp() - time()
    except (ValueError, OverflowError, OSError):
        return None
    return left if left > 0 else None


def _partial_success(body: bytes) -> tuple[int, str]:
    """How many spans the endpoint left out, as it says, and what it says of that, or of what it took."""
    if not body:
        return 0, ""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    try:
        said = ExportTraceServiceResponse.FromString(body).partial_success
    except Exception:  # protobuf's DecodeError, which has no types: it is some proxy's page
        return 0, ""
    return said.rejected_spans, said.error_message


def _reached(error: Exception) -> bool:
    """Whether a connection was there, and the endpoint let it go or did not answer."""
    return isinstance(error, requests.ReadTimeout) or any(isinstance(each, ProtocolError) for each in error.args)


def _detail(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:_MOST_DETAIL]
