"""Draws a saga's tree for a terminal. A ``send`` that was consumed is folded into the hop: its end is where the queue
time of the ``process`` span below it begins.
"""

from collections.abc import Iterator
from io import StringIO

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from pavane_tracing.conventions import MESSAGING, SAGA_STEP
from pavane_tracing.span import SpanRow
from pavane_tracing.tree import Node, SagaTree

WIDTH = 100
_GUIDE = 4
_TIMES = 20
_SHORTEST_NAME = 12


def draw(tree: SagaTree, *, width: int = WIDTH, sends: bool = False) -> Tree:
    """The tree as rich draws it, with columns for queue time and duration. ``sends``: show every ``send`` span too."""
    errors = sum(node.row.status == "ERROR" for node in tree.nodes())
    head = Text.assemble(
        ("saga ", "dim"),
        (tree.saga, "bold"),
        (f" {tree.saga_name}" if tree.saga_name else "", "bold cyan"),
    )
    counted = f"{_count(sum(1 for _ in tree.nodes()), 'span')} · {_count(len(tree.services), 'service')}"
    summary = Text(f"{counted} · {_time(tree.duration_ns)}", "dim")
    if errors:
        summary.append(f" · {_count(errors, 'error')}", "red")
    head.append("\n").append_text(summary)
    columns = Text(f"{'queued':>{_TIMES // 2}}{'took':>{_TIMES // 2}}", "dim")
    head.append(" " * max(1, width - summary.cell_len - _TIMES)).append_text(columns)
    drawn = Tree(head, guide_style="dim")
    for root in tree.roots:
        below, depth = drawn, 1
        if root.linked_from or root.lost_parent:
            below, depth = drawn.add(_origin(root, width - _GUIDE)), 2
        _add(below, root, depth, width, sends)
    return drawn


def to_text(tree: SagaTree, *, width: int = WIDTH, sends: bool = False) -> str:
    """The same as plain text, without colours: for pipes, logs and tests."""
    file = StringIO()
    console = Console(file=file, width=width, color_system=None, force_terminal=False, legacy_windows=False)
    console.print(draw(tree, width=width, sends=sends), overflow="ellipsis", no_wrap=True, crop=True)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"


def _add(below: Tree, node: Node, depth: int, width: int, sends: bool) -> None:
    branch = below.add(_line(node, width - _GUIDE * depth))
    for child in _shown(node, sends):
        _add(branch, child, depth + 1, width, sends)


def _shown(node: Node, sends: bool) -> Iterator[Node]:
    for child in node.children:
        if not sends and child.row.kind == "PRODUCER" and child.children:
            yield from _shown(child, sends)
        else:
            yield child


def _line(node: Node, width: int) -> Text:
    row = node.row
    before = Text.assemble((row.service, "bold"))
    step = row.text(SAGA_STEP) if row.kind == "CONSUMER" else None
    if step is not None:
        short = step.removeprefix(f"{row.service}/")
        before.append(f" ↩ undoes {short}" if node.undoes else f"/{short}", "yellow" if node.undoes else "cyan")
    after = _marks(node)
    room = max(_SHORTEST_NAME, width - _TIMES - before.cell_len - after.cell_len - 1)
    line = Text.assemble(before, " ", (_shorten(row.name, room), "" if row.kind == "CONSUMER" else "dim"), after)
    line.truncate(width - _TIMES, overflow="ellipsis", pad=True)
    queued = "" if node.queued_ns is None else f"+{_time(node.queued_ns)}"
    line.append(f"{queued:>{_TIMES // 2}}", "magenta").append(f"{_time(row.end_ns - row.start_ns):>{_TIMES // 2}}")
    return line


def _marks(node: Node) -> Text:
    row, marks = node.row, Text()
    for name in dict.fromkeys(event.name for event in row.events):
        times = sum(event.name == name for event in row.events)
        marks.append(f" {name}" if times == 1 else f" {name} ×{times}", "yellow")
    if row.status == "ERROR":
        marks.append(f" ✗ {row.text(MESSAGING.error_type) or 'error'}", "bold red")
    if row.kind == "PRODUCER" and not node.children and row.parent_span_id is not None:
        marks.append(" (not consumed)", "dim")
    return marks


def _origin(root: Node, width: int) -> Text:
    if not root.linked_from:
        return Text("begun by a span that is not here", "dim italic")
    line = Text("linked from " + ", ".join(map(_called, root.linked_from)), "dim italic")
    line.truncate(width, overflow="ellipsis")
    return line


def _called(row: SpanRow) -> str:
    step = row.text(SAGA_STEP)
    return f"{step if step is not None else row.service} ({row.name})"


def _shorten(text: str, room: int) -> str:
    return text if len(text) <= room else text[: room - 1] + "…"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _time(nanoseconds: int) -> str:
    milliseconds = nanoseconds / 1e6
    if abs(milliseconds) < 0.1:
        return f"{nanoseconds / 1e3:.0f} µs"
    if abs(milliseconds) < 1_000:
        return f"{milliseconds:.1f} ms"
    seconds = milliseconds / 1e3
    return f"{seconds:.2f} s" if abs(seconds) < 120 else f"{seconds / 60:.1f} min"
