"""One request to an endpoint: what the process's environment says beside OpenTelemetry's variables, and what counts then."""

import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import certifi
import pytest

from pavane_tracing.courier import Courier
from pavane_tracing.endpoint import Endpoint
from support.collector import Collector, collecting
from support.serving import serving


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Of 127.0.0.1, signed by nobody else, with its key."""
    if shutil.which("openssl") is None:
        pytest.skip("no certificates without the command openssl: apt-get install openssl")
    options = [
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "1",
        "-subj",
        "/CN=127.0.0.1",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
    ]
    files = ["-keyout", "key.pem", "-out", "certificate.pem"]
    subprocess.run(["openssl", "req", "-x509", *options, *files], cwd=tmp_path, check=True, capture_output=True, timeout=60)
    return tmp_path / "certificate.pem"


@pytest.fixture
def over_tls(certificate: Path) -> Iterator[Collector]:
    """A collector that speaks TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    collector = Collector()
    collector.socket = context.wrap_socket(collector.socket, server_side=True)
    with serving(collector):
        yield collector


def secure(collector: Collector) -> str:
    return f"https://127.0.0.1:{collector.server_port}/v1/traces"


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_the_certificate_that_is_said_for_it_counts(
    variable: str, certificate: Path, over_tls: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, certifi.where())
    answer = Endpoint(secure(over_tls), certificate=str(certificate)).connect().send(b"")
    assert (answer.taken, answer.why) == (True, "")
    assert "CERTIFICATE_VERIFY_FAILED" in Endpoint(secure(over_tls)).connect().send(b"").why
    monkeypatch.setenv(variable, str(certificate))
    assert Endpoint(secure(over_tls)).connect().send(b"").taken


def test_an_answer_that_dribbles_over_tls_is_cut_off(certificate: Path, over_tls: Collector) -> None:
    over_tls.dribble = "head"
    courier = Courier(Endpoint(secure(over_tls), certificate=str(certificate), timeout_s=0.3), lambda: None)
    answer = courier.send(b"")
    assert (answer.taken, answer.again, answer.reached) == (False, True, True)
    assert answer.why.endswith("has not answered within 0.3 s")
    courier.close()


def test_headers_that_are_said_count_whatever_a_netrc_or_the_address_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with collecting() as collector:
        for address in (collector.url, collector.url.replace("//", "//me:secret@")):
            endpoint = Endpoint(f"{address}/v1/traces", {"authorization": "Bearer mine"})
            assert endpoint.connect().send(b"").taken
        assert Endpoint(f"{collector.url}/v1/traces").connect().send(b"").taken
    said = [headers["authorization"] for headers in collector.headers]
    assert said[:2] == ["Bearer mine"] * 2
    assert said[2].startswith("Basic ")
