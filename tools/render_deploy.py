"""Write the generated files of deploy/, or with --check say which of them differ from what the code makes.

python tools/render_deploy.py [--check]
"""

from __future__ import annotations

import sys
from pathlib import Path

from exo.cluster.inventory_reader import read_inventory
from exo.cluster.monitoring import DASHBOARD_FILE, dashboard, rule_files
from exo.cluster.render.haproxy import haproxy_cfg
from exo.cluster.render.nginx import load_balancer_conf

DEPLOY = Path(__file__).resolve().parent.parent / "deploy"
INVENTORY = DEPLOY / "cluster.example.toml"
_HEADER = """\
# Made from deploy/cluster.example.toml by tools/render_deploy.py, as an example. For nodes of your own write a
# cluster.toml and run:  exo cluster render {kind} -i cluster.toml -o DIR"""


def generated() -> dict[Path, str]:
    """Path below deploy/ and text of every generated file."""
    inventory = read_inventory(INVENTORY)
    rules = {Path("prometheus") / name: text for name, text in rule_files().items()}
    return {
        **rules,
        Path("grafana") / DASHBOARD_FILE: dashboard(),
        Path("haproxy/haproxy.cfg"): haproxy_cfg(inventory, _HEADER.format(kind="haproxy")),
        Path("nginx/exo-load-balancer.conf"): (f"{_HEADER.format(kind='nginx')}\n#\n{load_balancer_conf(inventory)}"),
    }


def main(arguments: list[str]) -> int:
    is_check = arguments == ["--check"]
    if arguments and not is_check:
        print(__doc__, file=sys.stderr)
        return 2
    differing = 0
    for name, text in generated().items():
        path = DEPLOY / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        differing += 1
        print(f"{'differs' if is_check else 'written'}: deploy/{name}")
        if not is_check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return 1 if is_check and differing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
