"""rkllm_converter: from a model of Hugging Face to a folder that rkllama serves, with Rockchip's toolkit."""

__version__ = "0.1.0"
