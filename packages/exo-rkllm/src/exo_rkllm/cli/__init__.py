"""The command `rkllama`."""
