"""The board's telemetry as metrics, read when somebody asks for them. docs/METRICS.md describes names and labels."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from threading import Thread

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from exo_rkllm.telemetry import Telemetry

NEWEST_FOR = 1.0
"""Seconds; the driver counts its load over as long."""
WAITED = 0.2

logger = logging.getLogger(__name__)


class BoardCollector(Collector):
    """The families of a board; without `latest` they have no samples, since the board is somebody else's."""

    def __init__(self, latest: Callable[[], Telemetry] | None = None) -> None:
        self._latest = latest

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return families(Telemetry())

    def collect(self) -> Iterable[GaugeMetricFamily]:
        return families(self._latest() if self._latest else Telemetry())


class LatestTelemetry:
    """Calls `read` at most once a second, on a thread, and waits `limit` seconds for it at most.

    /metrics is made on the event loop, and a file of the kernel may block for as long as a driver hangs. A reading
    that hangs costs one thread and one wait: until it returns nothing is known, and no other is begun. Waiting on the
    loop otherwise takes a few milliseconds; serving the reading before instead would show what was a scrape ago.
    """

    def __init__(
        self,
        read: Callable[[], Telemetry],
        *,
        limit: float = WAITED,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._limit = limit
        self._clock = clock
        self._reading: Future[Telemetry] | None = None
        self._begun = 0.0

    def __call__(self) -> Telemetry:
        """For one thread, the event loop's."""
        reading, limit = self._reading, 0.0
        if reading is None or (reading.done() and self._clock() - self._begun >= NEWEST_FOR):
            self._reading = reading = Future()
            self._begun, limit = self._clock(), self._limit
            try:
                Thread(target=self._fill, args=(reading,), name="board-telemetry", daemon=True).start()
            except RuntimeError:  # no thread can be started
                reading.set_result(Telemetry())
        try:
            return reading.result(limit)
        except FutureTimeoutError:
            return Telemetry()

    def _fill(self, reading: Future[Telemetry]) -> None:
        try:
            reading.set_result(self._read())
        except Exception:  # whatever the board has, the node's other metrics are still wanted
            logger.exception("reading the board's telemetry failed")
            reading.set_result(Telemetry())


def families(told: Telemetry) -> list[GaugeMetricFamily]:
    """All of them, with a sample for each thing that is known."""
    return [
        _labelled("rkllm_npu_load_ratio", "How busy the cores of the NPU are, 0 to 1.", "core", told.npu_load),
        _single("rkllm_npu_frequency_hertz", "Frequency of the NPU.", told.npu_frequency),
        _single("rkllm_npu_frequency_max_hertz", "Highest frequency of the NPU.", told.npu_frequency_max),
        _single("rkllm_ddr_frequency_hertz", "Frequency of the memory.", told.ddr_frequency),
        _labelled("rkllm_temperature_celsius", "Temperatures by thermal zone.", "zone", told.temperatures),
        _labelled(
            "rkllm_throttled", "1 while the kernel's cooling holds it below full speed.", "device", told.throttled
        ),
        _info("rkllm_governor_info", "1 for the governor in use.", ["device", "governor"], told.governors.items()),
        _info(
            "rkllm_driver_info", "1 for the driver of the NPU.", ["version"], [(told.driver,)] if told.driver else []
        ),
    ]


def _single(name: str, text: str, value: float | None) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)


def _labelled(name: str, text: str, label: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _info(name: str, text: str, labels: Sequence[str], rows: Iterable[Sequence[str]]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=labels)
    for row in rows:
        family.add_metric(row, 1)
    return family
