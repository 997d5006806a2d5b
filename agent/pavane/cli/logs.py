"""Logs: structlog and the standard library's loggers, as one stream on standard error, each line with its trace and saga."""

import logging
import sys
from collections.abc import MutableMapping

from pavane_tracing.here import log_ids


def set_up_logs(level: str) -> None:
    """Lines for people on a terminal, one JSON object per line elsewhere; from that severity on."""
    import structlog

    is_terminal = sys.stderr.isatty()
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        _add_ids,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso"),
    ]
    renderer: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer()]
        if is_terminal
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


def _add_ids(logger: object, method: str, event: MutableMapping[str, object]) -> MutableMapping[str, object]:
    """What the line itself says of trace, span and saga counts."""
    for name, value in log_ids().items():
        event.setdefault(name, value)
    return event
