"""rkllm_sim: a stand-in for librkllmrt.so, for machines without an NPU."""

__version__ = "0.1.0"
