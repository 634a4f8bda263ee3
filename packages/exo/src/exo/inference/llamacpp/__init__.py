"""The engine llamacpp: llama.cpp on the CPU, in a worker process, spoken to over a private socket."""
