"""Ollama's dialect: chat, generate, embed, and the models of the store."""
