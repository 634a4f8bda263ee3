"""Blocking work that can be left at once."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
_LOOK = 0.1
_AHEAD = 16


@dataclass(frozen=True)
class _Item(Generic[T]):
    value: T


@dataclass(frozen=True)
class _End:
    error: BaseException | None = None


def in_background(work: Generator[T, None, None], left: threading.Event) -> Generator[T, None, None]:
    """What `work` yields, computed in a thread of its own; ends early within 0.2 s once `left` is set.

    A thread that waits for the network cannot be told to stop: it is left behind, and closes `work` as soon as its wait
    ends. So `work` must hold nothing that somebody else needs.
    """
    box: queue.Queue[_Item[T] | _End] = queue.Queue(_AHEAD)
    unwanted = threading.Event()
    threading.Thread(target=_run, args=(work, box, unwanted), daemon=True, name="exo-pull").start()
    try:
        while not left.is_set():
            try:
                entry = box.get(timeout=_LOOK)
            except queue.Empty:
                continue
            if isinstance(entry, _Item):
                yield entry.value
            elif entry.error is not None:
                raise entry.error
            else:
                return
    finally:
        unwanted.set()


def _run(work: Generator[T, None, None], box: queue.Queue[_Item[T] | _End], unwanted: threading.Event) -> None:
    end = _End()
    try:
        for value in work:
            if not _put(box, _Item(value), unwanted):
                break
    except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits for it
        end = _End(error)
    finally:
        work.close()
    _put(box, end, unwanted)


def _put(box: queue.Queue[_Item[T] | _End], entry: _Item[T] | _End, unwanted: threading.Event) -> bool:
    while not unwanted.is_set():
        try:
            box.put(entry, timeout=_LOOK)
        except queue.Full:
            continue
        return True
    return False
