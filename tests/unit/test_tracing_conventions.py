"""The maps of messaging conventions hold names that OpenTelemetry knows, and a variable chooses between them."""

from collections.abc import Iterator, Mapping
from dataclasses import fields
from importlib import import_module
from types import MappingProxyType

import pytest
from opentelemetry.semconv.schemas import Schemas

from pavane_events.envelope import Envelope
from pavane_tracing.conventions import MESSAGING, OPT_IN, V1_44, V1_45, Conventions, naming_for
from pavane_tracing.setup import make_tracing

MAPS = (V1_44, V1_45)
INSTALLED = max(tuple(map(int, each.name.removeprefix("V").split("_")))[:2] for each in Schemas)
"""The version of the conventions that the installed package holds."""
RENAMED_IN_1_45 = MappingProxyType(
    {
        "messaging.system": "messaging.system.name",
        "messaging.kafka.offset": "kafka.offset",
        "messaging.kafka.message.key": "kafka.message.key",
    }
)
"""As the registry of 1.45 says, which Python's package did not hold when this was written and JavaScript's did:
``@opentelemetry/semantic-conventions`` 1.45.0 calls each of the former deprecated, "replaced by" the latter."""


def modules() -> Iterator[Mapping[str, object]]:
    yield vars(import_module("opentelemetry.semconv._incubating.attributes.messaging_attributes"))
    yield vars(import_module("opentelemetry.semconv.attributes.error_attributes"))
    if INSTALLED >= (1, 45):
        yield vars(import_module("opentelemetry.semconv._incubating.attributes.kafka_attributes"))


def known() -> set[str]:
    return {value for module in modules() for name, value in module.items() if name.isupper() and isinstance(value, str)}


def names_of(conventions: Conventions) -> dict[str, str]:
    return {each.name: getattr(conventions, each.name) for each in fields(conventions) if each.name != "version"}


@pytest.mark.parametrize("conventions", MAPS, ids=lambda each: each.version)
def test_every_name_is_one_of_opentelemetry(conventions: Conventions) -> None:
    version = tuple(map(int, conventions.version.split(".")))
    renamed = set(RENAMED_IN_1_45.values()) if version > INSTALLED else set[str]()
    assert set(names_of(conventions).values()) <= known() | renamed


def test_what_1_45_renames_is_what_its_registry_says() -> None:
    older, newer = names_of(V1_44), names_of(V1_45)
    assert {older[name]: newer[name] for name in older if older[name] != newer[name]} == RENAMED_IN_1_45


def test_the_maps_say_which_version_they_are_of() -> None:
    assert [each.version for each in MAPS] == ["1.44", "1.45"]
    assert MESSAGING is V1_44


@pytest.mark.parametrize(
    ("opt_in", "names", "doubled"),
    [
        ("", V1_44, False),
        ("http,database/dup", V1_44, False),
        ("messaging", V1_45, False),
        (" http , MESSAGING ", V1_45, False),
        ("messaging/dup", V1_45, True),
        ("messaging,messaging/dup", V1_45, True),
    ],
)
def test_the_opt_in_is_read_as_the_conventions_say(opt_in: str, names: Conventions, doubled: bool) -> None:
    naming = naming_for(opt_in)
    assert naming.names is names
    older = dict(naming.doubles)
    assert older == ({new: old for old, new in RENAMED_IN_1_45.items()} if doubled else {})


@pytest.mark.parametrize(
    ("opt_in", "named"),
    [
        (None, {"messaging.system": "kafka", "messaging.kafka.offset": 41}),
        ("messaging", {"messaging.system.name": "kafka", "kafka.offset": 41}),
        (
            "messaging/dup",
            {
                "messaging.system": "kafka",
                "messaging.kafka.offset": 41,
                "messaging.system.name": "kafka",
                "kafka.offset": 41,
            },
        ),
    ],
)
def test_spans_carry_the_names_that_were_asked_for(
    opt_in: str | None, named: Mapping[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    if opt_in is None:
        monkeypatch.delenv(OPT_IN, raising=False)
    else:
        monkeypatch.setenv(OPT_IN, opt_in)
    tracing = make_tracing("credit-score", keep=True, system="kafka")
    envelope = Envelope(id="event-1", source="/agents/intake", type="credit.submitted", data=b"{}")
    work = tracing.process(envelope, topic="credit.submitted", partition=3, offset=41, group="credit-score")
    work.send("credit.scored", "event-2", "credit.scored")
    work.end()
    tracing.shutdown(1)
    process, send = work.spans
    may_differ = {*RENAMED_IN_1_45, *RENAMED_IN_1_45.values()}
    assert {name: value for name, value in process.attributes.items() if name in may_differ} == named
    systems = {name: value for name, value in named.items() if "system" in name}
    assert {name: value for name, value in send.attributes.items() if name in may_differ} == systems
