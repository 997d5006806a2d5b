"""Groups: the single errors in an exception group, however deep."""

from collections.abc import Iterator
from typing import TypeVar, cast

E = TypeVar("E", bound=BaseException)


def leaves(group: BaseExceptionGroup[E]) -> Iterator[E]:
    """Every exception of the group that is no group itself, in order."""
    for each in group.exceptions:
        if isinstance(each, BaseExceptionGroup):
            yield from leaves(cast("BaseExceptionGroup[E]", each))
        else:
            yield each
