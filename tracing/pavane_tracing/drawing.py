"""Draws a saga's tree for a terminal. A ``send`` that was consumed is folded into the hop: its end is where the queue
time of the ``process`` span below it begins. An undo is drawn below the step that it undoes.

A tree that is deeper than the terminal is wide is drawn flat: of what a span led to, what led to most follows it on its own
level, with ``⤷``. So no tree is indented by more than the logarithm of its size.
"""

from collections.abc import Iterator, Mapping, Sequence
from io import StringIO

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from pavane_tracing.conventions import EVENT_TYPE, MESSAGING, SAGA_STEP
from pavane_tracing.naming import counted
from pavane_tracing.path import Leg
from pavane_tracing.sent import Key
from pavane_tracing.span import SpanRow
from pavane_tracing.tree import Node, SagaTree

WIDTH = 100
_GUIDE = 4
_TIME = 10
_MARK = "◆"
_TIMES = 2 * _TIME + 2
_SHORTEST_NAME = 12
_FEWEST_COLUMNS = _TIMES + 2 * _SHORTEST_NAME
"""What a line needs in order to say who did what, and the times."""
_FLAT = "⤷ "

Undos = Mapping[Key, Sequence[Node]]
"""The undos of each step, by its span."""
_Item = Node | Sequence[Node]
"""A span, or those that only took note of one event."""


def draw(tree: SagaTree, *, width: int = WIDTH, sends: bool = False) -> Tree:
    """The tree as rich draws it, with columns for queue and work time. ``sends``: show every ``send`` span too.

    What determined when the saga ended is marked at the right.
    """
    drawn = Tree(_head(tree, width), guide_style="dim")
    undos = _undos(tree)
    for root in tree.roots:
        below, depth = drawn, 1
        if root.linked_from or root.lost_parent:
            below, depth = drawn.add(_origin(root, width - _GUIDE)), 2
        _Drawing(root, width, sends, undos).add(below, depth)
    return drawn


def to_text(tree: SagaTree, *, width: int = WIDTH, sends: bool = False) -> str:
    """The same as plain text, without colours: for pipes, logs and tests."""
    file = StringIO()
    console = Console(file=file, width=width, color_system=None, force_terminal=False, legacy_windows=False)
    console.print(draw(tree, width=width, sends=sends), overflow="ellipsis", no_wrap=True, crop=True)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"


def _head(tree: SagaTree, width: int) -> Text:
    errors = sum(node.row.status == "ERROR" for node in tree.nodes())
    name = f" {tree.saga_name}" if tree.saga_name else ""
    head = Text.assemble(("saga ", "dim"), (tree.saga, "bold"), (name, "bold cyan"))
    figures = f"{counted(sum(1 for _ in tree.nodes()), 'span')} · {counted(len(tree.services), 'service')}"
    summary = Text(f"{figures} · {_time(tree.duration_ns)}", "dim")
    if errors:
        summary.append(f" · {counted(errors, 'error')}", "red")
    if tree.path:
        head.append("\n").append_text(_path(tree.path, width))
    head.append("\n").append_text(summary)
    columns = Text(f"{'queued':>{_TIME}}{'work':>{_TIME}}", "dim")
    head.append(" " * max(1, width - summary.cell_len - _TIMES)).append_text(columns)
    return head


def _path(path: Sequence[Leg], width: int) -> Text:
    """What the end waited for, in one line, and the longest of it."""
    queued = sum(leg.queued_ns or 0 for leg in path)
    worked = sum(leg.worked_ns for leg in path)
    longest = max(path, key=lambda leg: max(leg.queued_ns or 0, leg.worked_ns))
    waited = (longest.queued_ns or 0) > longest.worked_ns
    hop = longest.row.text(SAGA_STEP) or f"{longest.row.service} ← {longest.row.text(EVENT_TYPE)}"
    most = f"{_time(max(longest.queued_ns or 0, longest.worked_ns))} {'before' if waited else 'in'} {hop}"
    said = f" {counted(len(path), 'hop')}: {_time(queued)} queued, {_time(worked)} at work; longest {most}"
    line = Text.assemble((_MARK, "bold green"), (said, "dim"))
    line.truncate(width, overflow="ellipsis")
    return line


def _undos(tree: SagaTree) -> Undos:
    found: dict[Key, list[Node]] = {}
    for node in tree.nodes():
        if node.undone is not None:
            found.setdefault((node.undone.trace_id, node.undone.span_id), []).append(node)
    return found


def _key(node: Node) -> Key:
    return node.row.trace_id, node.row.span_id


class _Drawing:
    """How a root and all below it are drawn. Each span once, and without a call within a call: chains are long."""

    def __init__(self, root: Node, width: int, sends: bool, undos: Undos) -> None:
        self._root = root
        self._width = width
        self._below: dict[Key, list[_Item]] = {}
        self._size: dict[Key, int] = {}
        self._deepest = 0
        order, waiting, seen = list[Node](), [(root, 0)], {_key(root)}
        while waiting:
            node, depth = waiting.pop()
            order.append(node)
            self._deepest = max(self._deepest, depth)
            told: dict[str, list[Node]] = {}
            below: list[_Item] = []
            for child in _shown(node, sends):
                if _is_told(child):
                    told.setdefault(child.row.text(EVENT_TYPE) or "", []).append(child)
                else:
                    below.append(child)
            found = [each for each in undos.get(_key(node), ()) if _key(each) not in seen]
            self._below[_key(node)] = [*below, *told.values(), *found]
            seen.update(map(_key, found))
            waiting += [(each, depth + 1) for each in (*below, *found) if isinstance(each, Node)]
        for node in reversed(order):
            self._size[_key(node)] = 1 + sum(map(self._weight, self._below[_key(node)]))

    def add(self, below: Tree, depth: int) -> None:
        """Draw it, at this depth."""
        flat = self._width - _GUIDE * (depth + self._deepest) < _FEWEST_COLUMNS
        waiting: list[tuple[Tree, _Item, int, str]] = [(below, self._root, depth, "")]
        while waiting:
            below, item, depth, mark = waiting.pop()
            width = self._width - _GUIDE * depth
            if not isinstance(item, Node):
                below.add(_told(item, width))
                continue
            branch = below.add(_line(item, width, mark))
            others = self._below[_key(item)]
            onward = max(others, key=self._weight, default=None) if flat else None
            if isinstance(onward, Node):
                waiting.append((below, onward, depth, _FLAT))
            waiting += [(branch, each, depth + 1, "") for each in reversed(others) if each is not onward]

    def _weight(self, item: "_Item") -> int:
        return self._size[_key(item)] if isinstance(item, Node) else 0


def _shown(node: Node, sends: bool) -> Iterator[Node]:
    """What is drawn below a span; an undo is drawn elsewhere, where its step is known."""
    for child in node.children:
        if child.undone is not None or (_is_noted(child) and not sends):
            continue
        if child.row.kind == "PRODUCER" and child.children and not (sends and not _is_moved(child)):
            yield from _shown(child, sends)
        else:
            yield child


def _is_noted(node: Node) -> bool:
    """Whether a span sent something of the platform's own that nobody had to work on, such as one fact of several."""
    row = node.row
    return row.kind == "PRODUCER" and not node.children and (row.text(EVENT_TYPE) or "").startswith("pavane.")


def _is_moved(send: Node) -> bool:
    return any(child.undone is not None for child in send.children)


def _is_told(node: Node) -> bool:
    """Whether a span only took note, as every agent does when a saga turns back: such are drawn together."""
    row = node.row
    return row.kind == "CONSUMER" and not node.children and row.text(SAGA_STEP) is None and row.status != "ERROR"


def _told(nodes: Sequence[Node], width: int) -> Text:
    if len(nodes) == 1:
        return _line(nodes[0], width)
    names = ", ".join(sorted(node.row.service for node in nodes))
    text = Text.assemble((f"{len(nodes)} services", "bold"), _event(nodes[0].row, 99), (f": {names}", "dim"))
    queued = max((node.queued_ns or 0 for node in nodes), default=0)
    worked = max(node.row.end_ns - node.row.start_ns for node in nodes)
    return _with_times(text, width, queued, worked, critical=any(node.critical for node in nodes))


def _line(node: Node, width: int, mark: str = "") -> Text:
    row = node.row
    step = row.text(SAGA_STEP) if row.kind == "CONSUMER" else None
    text = Text.assemble((mark, "dim"), (row.service, "bold"))
    if step is not None:
        short = step.removeprefix(f"{row.service}/")
        text.append(f" ↩ undoes {short}" if node.undoes else f"/{short}", "yellow" if node.undoes else "cyan")
    after = _marks(node)
    room = width - _TIMES - text.cell_len - after.cell_len
    if row.kind != "CONSUMER":
        text.append(f" {_shorten(row.name, max(_SHORTEST_NAME, room) - 1)}", "dim")
    elif not node.undoes and room >= _SHORTEST_NAME:  # what went wrong counts for more than which event it was
        text.append_text(_event(row, room))
    text.append_text(after)
    return _with_times(text, width, node.queued_ns, row.end_ns - row.start_ns, critical=node.critical)


def _event(row: SpanRow, room: int) -> Text:
    """Which event a span works on. Of a long name the end tells more than the beginning."""
    name = row.text(EVENT_TYPE) or row.name.removeprefix("process ")
    room -= 3
    return Text(f" ← {name if len(name) <= room else '…' + name[len(name) - room + 1 :]}", "")


def _with_times(text: Text, width: int, queued_ns: int | None, worked_ns: int, *, critical: bool) -> Text:
    text.truncate(width - _TIMES, overflow="ellipsis", pad=True)
    queued = "" if queued_ns is None else f"+{_time(queued_ns)}"
    text.append(f"{queued:>{_TIME}}", "magenta").append(f"{_time(worked_ns):>{_TIME}}")
    return text.append(f" {_MARK}", "bold green") if critical else text


def _marks(node: Node) -> Text:
    row, marks = node.row, Text()
    for name in dict.fromkeys(event.name for event in row.events):
        times = sum(event.name == name for event in row.events)
        marks.append(f" {name}" if times == 1 else f" {name} ×{times}", "yellow")
    if row.status == "ERROR":
        marks.append(f" ✗ {row.text(MESSAGING.error_type) or 'error'}", "bold red")
    if row.kind == "PRODUCER" and not node.children and row.parent_span_id is not None and not _is_noted(node):
        marks.append(" (not consumed)", "dim")
    undos = sum(_is_moved(child) for child in node.children)
    if undos:
        marks.append(f" ↩ asks for {counted(undos, 'undo')}", "yellow")
    return marks


def _origin(root: Node, width: int) -> Text:
    if not root.linked_from:
        return Text("begun by a span that is not here", "dim italic")
    line = Text("linked from " + ", ".join(map(_called, root.linked_from)), "dim italic")
    line.truncate(width, overflow="ellipsis")
    return line


def _called(row: SpanRow) -> str:
    return f"{_who(row)} ({row.name})"


def _who(row: SpanRow) -> str:
    return row.text(SAGA_STEP) or row.service


def _shorten(text: str, room: int) -> str:
    return text if len(text) <= room else text[: room - 1] + "…"


def _time(nanoseconds: int) -> str:
    milliseconds = nanoseconds / 1e6
    if abs(milliseconds) < 0.1:
        return f"{nanoseconds / 1e3:.0f} µs"
    if abs(milliseconds) < 1_000:
        return f"{milliseconds:.1f} ms"
    seconds = milliseconds / 1e3
    return f"{seconds:.2f} s" if abs(seconds) < 120 else f"{seconds / 60:.1f} min"
