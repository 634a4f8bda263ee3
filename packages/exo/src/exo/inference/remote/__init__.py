"""Another server in place of a model here: rkllama, exo, Ollama, llama-server and what else speaks their dialects."""

from exo.inference.remote.engine import RemoteEngine
from exo.inference.remote.ollama import OllamaClient

__all__ = ["OllamaClient", "RemoteEngine"]
