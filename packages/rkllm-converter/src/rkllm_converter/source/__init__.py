"""Where the model comes from: Hugging Face's hub, a local folder, or a GGUF file."""

from rkllm_converter.source.local import check_folder
from rkllm_converter.source.model import Source
from rkllm_converter.source.reference import fetch, look

__all__ = ["Source", "check_folder", "fetch", "look"]
