"""Progress bars; work that is to be silent makes none.

A bar of tqdm takes a lock that forked processes share, also where it shows nothing. A process that is killed while it
has that lock leaves all others waiting for it for ever: no worker of a server shall hang for a bar that nobody sees.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar, overload

from tqdm.auto import tqdm

T = TypeVar("T")


class Silent(Generic[T]):
    """What is used of a bar, without one."""

    def __init__(self, items: Iterable[T]) -> None:
        self._items = items

    def __iter__(self) -> Iterator[T]:
        return iter(self._items)

    def __enter__(self) -> Silent[T]:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def update(self, n: int = 1) -> None:
        pass


@overload
def progress(*, verbose: bool, **settings: Any) -> tqdm[Any] | Silent[Any]: ...
@overload
def progress(items: Iterable[T], *, verbose: bool, **settings: Any) -> tqdm[T] | Silent[T]: ...
def progress(items: Iterable[Any] = (), *, verbose: bool, **settings: Any) -> tqdm[Any] | Silent[Any]:
    """A bar over ``items``, or one that ``update`` moves to its ``total``; with ``verbose=False`` there is none.

    Args:
        items: What is iterated over, with a length or beside a ``total``.
        verbose: Show it.
        settings: Of tqdm: ``desc``, ``total``, ``unit``, ``leave``.
    """
    return tqdm(items, **settings) if verbose else Silent(items)
