"""Anthropic's dialect: messages, whole and streamed, the count of their tokens, and the list of models."""
