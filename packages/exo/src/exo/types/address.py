"""Addresses as URLs write them."""

from __future__ import annotations


def host_and_port(host: str, port: int) -> str:
    """`HOST:PORT` for a URL or a message; an IPv6 address gets its brackets, unless it has them."""
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    return f"[{bare}]:{port}" if ":" in bare else f"{bare}:{port}"
