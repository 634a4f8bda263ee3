"""The text side of a model: templates, tokenizers, prompts."""
