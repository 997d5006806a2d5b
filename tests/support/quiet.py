"""Loggers that would tell of every single one of many calls, kept quiet for as long as it takes."""

import logging
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def quiet(*names: str) -> Generator[None]:
    """What these log below CRITICAL is dropped within the block; after it they log as before."""
    loggers = [logging.getLogger(name) for name in names]
    before = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for each, level in zip(loggers, before, strict=True):
            each.setLevel(level)
