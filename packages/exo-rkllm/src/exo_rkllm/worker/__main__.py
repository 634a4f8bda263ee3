"""The entry of the worker process: `python -m exo_rkllm.worker FD`, FD being its end of the socket pair."""

from __future__ import annotations

import socket
import sys

from exo_rkllm.worker.process import Worker


def main() -> None:
    Worker(socket.socket(fileno=int(sys.argv[1]))).serve()


if __name__ == "__main__":
    main()
