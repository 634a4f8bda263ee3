"""The worker process of one loaded model: drives librkllmrt for the node. Run as `python -m exo_rkllm.worker FD`."""
