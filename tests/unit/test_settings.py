"""Settings come from the environment, typos are errors, and all of them are reported at once."""

import os
import re
from dataclasses import fields
from pathlib import Path

import pytest

from pavane.settings import Settings, load_settings
from pavane_credit.where import Where
from pavane_events.buses.kafka.options import KafkaOptions
from pavane_events.errors import ConfigurationError


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("PAVANE_"):
            monkeypatch.delenv(name)


def kafka(monkeypatch: pytest.MonkeyPatch, **settings: object) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(f"PAVANE_KAFKA_{name.upper()}", str(value))


def problems_of_kafka() -> list[tuple[str, str]]:
    with pytest.raises(ConfigurationError) as raised:
        load_settings()
    return [(problem.where.removeprefix("PAVANE_KAFKA_"), problem.code) for problem in raised.value.problems]


def test_variables_and_overrides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAVANE_PARTITIONS", "8")
    settings = load_settings(bus="memory://", partitions=None)
    assert (settings.bus, settings.partitions, settings.synchronous) == ("memory://", 8, "NORMAL")


def test_a_typo_is_an_error_that_names_the_right_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAVANE_PARTITION", "8")
    with pytest.raises(ConfigurationError, match="did you mean PAVANE_PARTITIONS"):
        load_settings()


def test_every_problem_is_listed_and_no_value_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAVANE_PARTITIONS", "none-of-these")
    monkeypatch.setenv("PAVANE_LOG", "loud")
    monkeypatch.setenv("PAVANE_NOSUCH", "1")
    with pytest.raises(ConfigurationError) as raised:
        load_settings()
    where = {problem.where for problem in raised.value.problems}
    assert where == {"PAVANE_PARTITIONS", "PAVANE_LOG", "PAVANE_NOSUCH"}
    assert "none-of-these" not in str(raised.value)


@pytest.mark.parametrize(
    "url", ["http://[::1", "http://?x", "http://x:abc", "http://x:99999", "http://a b", f"http://{'a' * 70}", "http://a..b:1"]
)
def test_an_address_of_jaeger_that_nobody_can_ask_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAVANE_JAEGER_URL", url)
    with pytest.raises(ConfigurationError, match=r"PAVANE_JAEGER_URL.*http://127\.0\.0\.1:16686"):
        load_settings()


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:16686", "https://[::1]:16686/jaeger", "http://jaeger_query", "http://bücher"]
)
def test_an_address_of_jaeger_may_be_any_other(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAVANE_JAEGER_URL", url)
    assert load_settings().jaeger_url == url


def test_without_a_variable_the_kafka_options_are_their_own_defaults() -> None:
    assert load_settings().kafka_options() == KafkaOptions()


def test_every_kafka_option_has_a_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("ca", "certificate", "key"):
        (tmp_path / f"{name}.pem").touch()
    wanted = KafkaOptions(
        prefix="staging.",
        replication=3,
        retention_days=7.5,
        security="SASL_SSL",
        mechanism="PLAIN",
        username="alice",
        password="open sesame",
        ca_file=tmp_path / "ca.pem",
        certificate_file=tmp_path / "certificate.pem",
        key_file=tmp_path / "key.pem",
        instance="worker-1",
        session_ms=20_000,
        heartbeat_ms=2_000,
        fetch_wait_ms=100,
        request_timeout_ms=6_000,
        transaction_timeout_ms=12_000,
        retry_backoff_ms=30,
        commit_records=100,
        pace=3.0,
        state_dir=tmp_path,
    )
    kafka(monkeypatch, **{field.name: getattr(wanted, field.name) for field in fields(KafkaOptions)})
    assert load_settings().kafka_options() == wanted


def test_no_password_is_ever_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    kafka(monkeypatch, security="SASL_SSL", username="alice", password="open sesame")
    settings = load_settings()
    assert settings.kafka_options().password == "open sesame"
    for shown in (repr(settings), str(settings), str(settings.model_dump()), repr(settings.kafka_options())):
        assert "sesame" not in shown


def test_a_password_may_lie_in_a_file_and_is_read_anew_each_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("first\n")
    kafka(monkeypatch, security="SASL_SSL", username="alice", password_file=file)
    settings = load_settings()
    assert settings.kafka_options().password == "first"
    file.write_text("second")
    assert settings.kafka_options().password == "second"


@pytest.mark.parametrize("content", [None, "", "\n", b"\xff\xfe"])
def test_a_password_file_that_holds_none_is_reported_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | bytes | None
) -> None:
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    kafka(monkeypatch, security="SASL_SSL", username="alice", password_file=file)
    assert problems_of_kafka() == [("PASSWORD_FILE", "kafka.password-file")]


def test_a_password_and_a_file_of_it_are_one_too_many(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kafka(monkeypatch, security="SASL_SSL", username="alice", password="secret", password_file=tmp_path / "none")
    assert problems_of_kafka() == [("PASSWORD_FILE", "kafka.password-twice")]


def test_what_does_not_go_together_is_reported_all_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kafka(
        monkeypatch,
        security="SASL_SSL",
        prefix="spaces are wrong",
        ca_file=tmp_path / "none.pem",
        key_file=tmp_path / "none.key",
        heartbeat_ms=5_000,
        fetch_wait_ms=4_000,
        transaction_timeout_ms=2_000,
    )
    assert problems_of_kafka() == [
        ("USERNAME", "kafka.username"),
        ("PASSWORD", "kafka.password"),
        ("CA_FILE", "kafka.file"),
        ("KEY_FILE", "kafka.file"),
        ("KEY_FILE", "kafka.unused"),
        ("PREFIX", "kafka.name"),
        ("HEARTBEAT_MS", "kafka.heartbeat"),
        ("FETCH_WAIT_MS", "kafka.fetch-wait"),
        ("TRANSACTION_TIMEOUT_MS", "kafka.transaction-timeout"),
    ]


def test_what_would_never_be_used_is_a_mistake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kafka(monkeypatch, username="alice", ca_file=tmp_path / "ca.pem")
    assert problems_of_kafka() == [("USERNAME", "kafka.unused"), ("CA_FILE", "kafka.unused")]


def test_a_typo_of_a_kafka_setting_is_an_error_that_names_the_right_one(monkeypatch: pytest.MonkeyPatch) -> None:
    kafka(monkeypatch, user_name="alice")
    with pytest.raises(ConfigurationError, match="did you mean PAVANE_KAFKA_USERNAME"):
        load_settings()


def test_the_reference_names_every_setting_and_no_other() -> None:
    page = (Path(__file__).parents[2] / "docs/reference/settings.md").read_text()
    written = set(re.findall(r"^\| `((?:PAVANE|CREDIT)_[A-Z_]+)`", page, re.MULTILINE))
    known = {f"PAVANE_{name.upper()}" for name in Settings.model_fields}
    assert written == known | {f"CREDIT_{name.upper()}" for name in Where.model_fields}
