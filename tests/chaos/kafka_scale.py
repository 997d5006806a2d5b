"""How long the Kafka chaos suite takes: its short form unless ``PAVANE_CHAOS=long``, which ``make chaos`` says."""

import os
from typing import TypeVar

T = TypeVar("T")

LONG = os.environ.get("PAVANE_CHAOS", "") == "long"
"""Whether this is the long form."""


def scaled(short: T, long: T) -> T:
    """One of them."""
    return long if LONG else short
