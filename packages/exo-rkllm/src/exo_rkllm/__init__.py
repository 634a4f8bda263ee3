"""exo_rkllm: the NPU of Rockchip boards as an engine for exo."""

__version__ = "0.1.0"
