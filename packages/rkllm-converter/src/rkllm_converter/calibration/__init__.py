"""Calibration data: what the toolkit measures a model with when it makes its weights smaller."""

from __future__ import annotations

from rkllm_converter.calibration.build import DEFAULT_SAMPLES, advice, build, dataset_hash
from rkllm_converter.calibration.template import ChatTemplate

__all__ = ["DEFAULT_SAMPLES", "ChatTemplate", "advice", "build", "dataset_hash"]
