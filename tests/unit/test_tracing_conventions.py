"""The map of messaging conventions holds names that OpenTelemetry knows."""

from dataclasses import fields
from importlib import import_module

import pytest

from pavane_tracing.conventions import MESSAGING

KNOWN = {
    value
    for module in (
        "opentelemetry.semconv._incubating.attributes.messaging_attributes",
        "opentelemetry.semconv.attributes.error_attributes",
    )
    for name, value in vars(import_module(module)).items()
    if name.isupper() and isinstance(value, str)
}


@pytest.mark.parametrize("field", [field.name for field in fields(MESSAGING) if field.name != "version"])
def test_every_name_is_one_of_opentelemetry(field: str) -> None:
    assert getattr(MESSAGING, field) in KNOWN


def test_the_map_says_which_version_it_is_of() -> None:
    assert MESSAGING.version == "1.44"
