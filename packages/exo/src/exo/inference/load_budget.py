"""How many loads of models the automatic choice may cause."""

from __future__ import annotations

from exo.inference.choice import ModelChooser


class LoadBudget:
    """At first `burst` loads may take place.

    Each request earns `per_request`, and each second in which the node had nothing to do `per_idle_second`: a load then
    keeps nobody waiting but who caused it. No more than `burst` are saved up, and no more than one is owed: whoever
    says outright which model is wanted loads it without asking, and must not block the choice of all others for long.
    """

    def __init__(self, *, burst: int, per_request: float, per_idle_second: float) -> None:
        self._burst = float(burst)
        self._per_request = per_request
        self._per_idle_second = per_idle_second
        self._saved = self._burst

    @classmethod
    def of(cls, chooser: ModelChooser) -> LoadBudget:
        return cls(
            burst=chooser.load_burst,
            per_request=chooser.loads_per_request,
            per_idle_second=1 / chooser.idle_seconds_per_load,
        )

    def earn_request(self) -> None:
        """A request that was decided begins to run."""
        self._earn(self._per_request)

    def earn_idle(self, seconds: float) -> None:
        """The node had nothing to do for so long."""
        self._earn(seconds * self._per_idle_second)

    def spend(self) -> None:
        """A load takes place."""
        self._saved = max(self._saved - 1, -1.0)

    def has(self, loads: int) -> bool:
        """Whether so many loads may take place."""
        return self._saved >= loads

    def _earn(self, loads: float) -> None:
        self._saved = min(self._burst, self._saved + loads)
