"""rkllm_facts: what is known of Rockchip's NPU chips and of librkllmrt.so. Data and pure functions, no dependency."""

__version__ = "0.1.0"
