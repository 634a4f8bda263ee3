"""What each key has under way and has spent, against its limits."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable

from exo.inference.caller import Caller
from exo.inference.metrics import NodeMetrics
from exo.types import KeyLimitReached

_MINUTE = 60.0
_LONGEST_GUESS = 60
"""Seconds. When a place is free is a guess, which gets worse the longer it is."""


class TokenBudget:
    """Tokens that may be spent: at most those of one minute, filled up evenly. Times are seconds of a monotonic clock.

    What an answer takes is known when it ends, so it may leave a debt, which has to be filled up too: over a long time
    nobody gets more than the limit, however much is asked at once.
    """

    def __init__(self, limit: int, now: float) -> None:
        self.limit = limit
        self._left = float(limit)
        self._at = now

    def wait(self, now: float) -> float:
        """Seconds until a token may be spent; 0 if one may be now."""
        self._fill(now)
        return max(0.0, 1.0 - self._left) * _MINUTE / self.limit

    def spend(self, tokens: int, now: float) -> None:
        self._fill(now)
        self._left -= tokens

    def _fill(self, now: float) -> None:
        self._left = min(float(self.limit), self._left + (now - self._at) * self.limit / _MINUTE)
        self._at = now


class Accounts:
    """By the names of keys, in the metrics too; a caller without a name is neither limited nor counted.

    An answer counts from `open`, while it waits too, until `close`.
    """

    def __init__(self, metrics: NodeMetrics, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._metrics = metrics
        self._clock = clock
        self._under_way: Counter[str] = Counter()
        self._budgets: dict[str, TokenBudget] = {}

    def open(self, caller: Caller, *, mean_run: float = 1.0) -> None:
        """An answer begins, if its key may have one. Raises KeyLimitReached. `mean_run` is in seconds, of an answer."""
        if not caller.name:
            return
        self._refuse_too_many(caller, mean_run)
        self._refuse_overspent(caller)
        self._change_under_way(caller.name, 1)

    def close(self, caller: Caller, *, prompt: int, completion: int, uncounted: int = 0) -> None:
        """It has ended, and has taken so many tokens. `uncounted` ones are a guess, and so no part of the metrics."""
        if not caller.name:
            return
        self._change_under_way(caller.name, -1)
        self._metrics.key_tokens.labels(caller.name, "prompt").inc(prompt)
        self._metrics.key_tokens.labels(caller.name, "completion").inc(completion)
        budget = self._budgets.get(caller.name)
        if budget is not None:
            budget.spend(prompt + completion + uncounted, self._clock())

    def _change_under_way(self, name: str, change: int) -> None:
        self._under_way[name] += change
        self._metrics.key_in_flight.labels(name).set(self._under_way[name])

    def _refuse_too_many(self, caller: Caller, mean_run: float) -> None:
        under_way = self._under_way[caller.name]
        if caller.requests is not None and under_way >= caller.requests:
            raise KeyLimitReached(
                f"Requests under way of the key {caller.name!r}: {under_way}, as many as it may have. "
                "Wait until one of them has ended.",
                retry_after=max(1, min(_LONGEST_GUESS, math.ceil(mean_run))),
            )

    def _refuse_overspent(self, caller: Caller) -> None:
        if caller.tokens is None:
            self._budgets.pop(caller.name, None)
            return
        now = self._clock()
        budget = self._budgets.setdefault(caller.name, TokenBudget(caller.tokens, now))
        budget.limit = caller.tokens  # it may have been changed since
        seconds = math.ceil(budget.wait(now))
        if seconds:
            raise KeyLimitReached(
                f"The key {caller.name!r} has spent the {caller.tokens} tokens per minute that it may. "
                f"Wait {seconds} seconds.",
                retry_after=seconds,
            )
