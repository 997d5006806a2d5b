"""Where a coroutine awaits while it handles an exception: what mypyc (2.4) gets wrong, so that no compiled module may do it.

A compiled coroutine has no exception state of its own: what others handle while it is suspended in an ``except`` or a
``finally`` is what it raises again. See docs/decisions/0015-compiled-from-the-same-sources.md.
"""

import ast
from collections.abc import Iterator

_NEVER_SUSPEND = ("asyncio.timeout(", "bound", "self._turn")
"""What an ``async with`` may be of, a timeout or a lock: leaving these suspends nobody."""


def awaits_while_handling(source: str) -> Iterator[int]:
    """The lines of a module at which a coroutine may be suspended while it handles an exception."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.AsyncFunctionDef):
            yield from _within(node)


def _within(function: ast.AsyncFunctionDef) -> Iterator[int]:
    for node in _own(function):
        if isinstance(node, ast.Try):
            for handling in (*node.handlers, *node.finalbody):
                for each in (handling, *_own(handling)):
                    if isinstance(each, ast.Await | ast.AsyncWith | ast.AsyncFor | ast.Yield):
                        yield each.lineno
        elif isinstance(node, ast.AsyncWith) and not all(map(_is_left_at_once, node.items)):
            yield node.lineno


def _is_left_at_once(item: ast.withitem) -> bool:
    return ast.unparse(item.context_expr).startswith(_NEVER_SUSPEND)


def _own(node: ast.AST) -> Iterator[ast.AST]:
    """All below a node, but not what functions within it do."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from _own(child)
