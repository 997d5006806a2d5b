"""Output: text for people, JSON for programs. Plain when piped: no colours, no boxes, nothing cut off."""

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime


def is_terminal() -> bool:
    """Whether somebody looks at standard output."""
    return sys.stdout.isatty()


def say(text: str) -> None:
    """A remark for whoever runs the command; never mixed with its output."""
    print(text, file=sys.stderr, flush=True)


def print_json(document: object) -> None:
    """One JSON document, indented on a terminal, one line otherwise."""
    print(json.dumps(document, indent=2 if is_terminal() else None, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], styles: Mapping[str, str] | None = None) -> None:
    """Rows under headings. ``styles``: how a cell of that content is coloured, as in ``{"parked": "red"}``."""
    if not is_terminal():
        _print_plain(columns, rows)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, no_wrap=index == 0, overflow="ellipsis")
    for row in rows:
        table.add_row(*(Text(cell, (styles or {}).get(cell, "")) for cell in row))
    Console().print(table)


def paint(text: str, style: str) -> str:
    """Text in a style on a terminal, as it is elsewhere. Styles: bold, dim, red, green, yellow, cyan."""
    return f"\x1b[{_CODES[style]}m{text}\x1b[0m" if is_terminal() else text


def safe(text: str) -> str:
    """Text that cannot move the cursor or change colours, whatever it was taken from."""
    return "".join(each if each.isprintable() else f"\\x{ord(each):02x}" for each in text)


def clock_time(at_ms: int) -> str:
    """A moment as local time of day."""
    return datetime.fromtimestamp(at_ms / 1000).strftime("%H:%M:%S.%f")[:-3]


def day_time(at_ms: int) -> str:
    """A moment as local day and time, short."""
    return datetime.fromtimestamp(at_ms / 1000).strftime("%m-%d %H:%M:%S")


def moment(at_ms: int) -> str:
    """A moment as local date and time."""
    return datetime.fromtimestamp(at_ms / 1000).isoformat(sep=" ", timespec="milliseconds")


def timestamp(at_ms: int) -> str:
    """A moment for programs: RFC 3339, UTC."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")


def span(milliseconds: int) -> str:
    """A length of time, short."""
    if milliseconds < 1000:
        return f"{milliseconds} ms"
    seconds = milliseconds / 1000
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = seconds / 60
    if minutes < 120:
        return f"{minutes:.1f} min"
    return f"{minutes / 60:.1f} h" if minutes < 48 * 60 else f"{minutes / 1440:.1f} d"


_CODES = {"bold": 1, "dim": 2, "red": 31, "green": 32, "yellow": 33, "cyan": 36}


def _print_plain(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    for row in (columns, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
