"""What models consist of: from a config.json, from the header of a GGUF file, or by the name of a known model."""

from rkllm_facts.architecture.families import architecture_of
from rkllm_facts.architecture.header import gguf_architecture
from rkllm_facts.architecture.known import KnownModel, known_architecture, known_model, known_models
from rkllm_facts.architecture.model import Architecture, Matrix

__all__ = [
    "Architecture",
    "KnownModel",
    "Matrix",
    "architecture_of",
    "gguf_architecture",
    "known_architecture",
    "known_model",
    "known_models",
]
