"""The names that the scraping configuration, the rules and the dashboard agree on."""

from __future__ import annotations

from exo.cluster.pools import LISTINGS, RESPONSES

NODE_JOB = "exo"
"""Prometheus' job of the nodes. Each target has a label `node`: its name in the inventory, and in HAProxy."""
PROXY_JOB = "haproxy"
"""Prometheus' job of HAProxy's exporter."""
POOLS = f'proxy=~"pool_.+",proxy!~".+({LISTINGS}|{RESPONSES})"'
"""Selects HAProxy's backends that have a queue; others beside them have the same servers, or only a table."""
RECORDING_FILE = "exo-recording.rules.yml"
ALERTING_FILE = "exo-alerting.rules.yml"
DASHBOARD_FILE = "exo-dashboard.json"
