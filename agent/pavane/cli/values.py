"""Values: a record's bytes as something that can be shown."""

import base64
import json
from typing import cast


def readable(value: bytes | None) -> object:
    """Bytes as JSON where they are, else as text, else as base64 in an object that says so."""
    if value is None:
        return None
    try:
        return cast("object", json.loads(value))
    except (ValueError, RecursionError):
        return text(value)


def text(value: bytes | None) -> object:
    """Bytes as text where they are, else as base64 in an object that says so."""
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}
