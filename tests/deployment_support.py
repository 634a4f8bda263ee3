"""What docs/DEPLOYMENT.md sets up, on the hosts of a lab: its commands are run there with small substitutions."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from npu_board import library

from cluster_support.network import Lab
from cluster_support.nodes import PORT, ClusterNode
from document_support import Block, not_printed
from rkllm_sim.model import write_model
from support import EXO, REPOSITORY, Node, run_well, wait_until

MODEL = "qwen2.5-1.5b-instruct"
BOARDS = ("board-1", "board-2", "board-3")
UNIT = REPOSITORY / "deploy/systemd/exo-cluster-watch.service"

_ADDRESSES = {"proxy": 10, "board-1": 11, "board-2": 12, "board-3": 13, "board-4": 14, "stranger": 15}
_OWN_FOLDERS = re.compile(r"(?<![\w./-])/(etc|opt|run|proc/device-tree|sys/kernel|usr/lib|usr/local|var/lib)/")
"""Nothing of this machine is touched there: these are folders of the test, one root for a board, one for the proxy."""
SUBSTITUTIONS = {
    # whoever runs the test is root, and the users of the services are not there
    r"\bsudo ": "",
    r" -[og] (exo-watch|exo|prometheus)\b": "",
    r"\bchown (-R )?\S+": r"chown \1root",
    r'admin_user = "exo-watch"': 'admin_user = "root"\nadmin_socket = "/run/haproxy/exo-admin.sock"',
    # the root of a board is a folder
    r"deploy/systemd/install-units": "deploy/systemd/install-units ROOT",
    r"\b(systemd-sysusers|systemd-tmpfiles --create)": r"\1 --root=ROOT",
    # what the build needs is here; tests/test_wheels.py installs the wheels with what they depend on
    r"python3 -m pip wheel": f"{sys.executable} -m pip wheel --no-build-isolation",
    r"pip install --constraint": "pip install --no-deps --no-index --constraint",
    # an update ends drain mode, as the node is started again
    r'ssh "\$board" update-board': 'exo cluster drain "$board" --undo',
    # the lab's Prometheus listens on an address of its own
    r"http://127\.0\.0\.1:9090": "http://192.0.2.10:9090",
    # a firewall that lets only the proxy in shows its effect to the test, which is on the cluster's network
    r"192\.0\.2\.0/24": "192.0.2.10/32",
}


class Deployment:
    """One root folder for all boards and one for the machine in front, called `board` and `proxy`."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.hosts = {name: lab.add_host(name) for name in ("proxy", *BOARDS)}
        self.roots = {"board": lab.folder / "board", "proxy": lab.folder / "front"}
        self.folders = {"board": lab.folder / "clone", "proxy": lab.folder}
        self.nodes: dict[str, ClusterNode] = {}
        self._make_roots()
        self._make_clone()

    @property
    def url(self) -> str:
        """Of the proxy."""
        return f"http://{self.hosts['proxy'].address}:{PORT}"

    def run(self, block: Block) -> None:
        """Run its commands where they belong, in the folder where those before have ended; check what they print."""
        where = place_of(block)
        stay = self.lab.folder / "stay"
        script = f"set -eu -o pipefail\n{self.adapted(block.text, where)}pwd >{stay}\n"
        env = {
            "PATH": f"{EXO.parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "RKLLM_ROOT": str(self.roots["board"]),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }
        host = self.hosts["board-1" if where == "board" else "proxy"]
        done = host.run("bash", "-c", script, env=env, cwd=self.folders[where])
        printed = done.stdout + done.stderr
        assert done.returncode == 0, f"line {block.line} ends with {done.returncode}:\n{script}\n{printed}"
        missing = not_printed(self.adapted(block.shown, where), printed)
        assert not missing, f"line {block.line}: {missing} is not in\n{printed}"
        self.folders[where] = Path(stay.read_text().strip())

    def adapted(self, text: str, where: str) -> str:
        """The text with folders and addresses of the lab in place of the page's."""
        for pattern, replacement in SUBSTITUTIONS.items():
            text = re.sub(pattern, replacement, text)
        for name, number in _ADDRESSES.items():
            if name in self.hosts:
                text = re.sub(rf"\b192\.0\.2\.{number}\b", self.hosts[name].address, text)
        root = str(self.roots[where])
        return _OWN_FOLDERS.sub(rf"{root}/\1/", re.sub(r"\bROOT\b", root, text))

    def write(self, where: str, name: str, text: str) -> None:
        """Put a text of the page into a file below a root, behind what it has."""
        with (self.roots[where] / name).open("a", encoding="utf-8") as file:
            file.write(self.adapted(text, where))

    def start_lonely_node(self) -> Node:
        """One on board-1 that listens on loopback, without further settings."""
        host = self.hosts["board-1"]
        node = Node(
            *("--inference-engine", "rkllm"),
            folder=host.folder / "alone",
            env=self._board_env(),
            address=("127.0.0.1", PORT),
            prefix=host.prefix,
            ready=False,
        )
        host.when_removed(node.end)
        ask = ("curl", "-sf", f"{node.url}/ready")
        wait_until(lambda: host.run(*ask).returncode == 0, timeout=60, what=f"the node to be ready\n{node.log}")
        return node

    def start_node(self, name: str, settings: Mapping[str, str]) -> ClusterNode:
        """Started, not ready yet."""
        if name not in self.hosts:
            self.hosts[name] = self.lab.add_host(name)
        env = {**self._board_env(), "EXO_NODE_NAME": name, **settings}
        node = ClusterNode(self.hosts[name], "--inference-engine", "rkllm", command=(EXO,), env=env)
        self.nodes[name] = node
        node.start(ready=False)
        return node

    def board_settings(self) -> dict[str, str]:
        """The variables that the page has put into the file of the service."""
        text = (self.roots["board"] / "etc/default/exo-rkllm").read_text(encoding="utf-8")
        return dict(line.split("=", 1) for line in text.splitlines())

    def watch_command(self) -> list[str]:
        """That of the unit."""
        (line,) = re.findall(r"^ExecStart=(.+)$", UNIT.read_text(encoding="utf-8"), re.MULTILINE)
        _, *arguments = shlex.split(self.adapted(line, "proxy"))
        return [str(EXO), *arguments]

    def _board_env(self) -> dict[str, str]:
        root = self.roots["board"]
        return {"RKLLM_ROOT": str(root), "RKLLAMA_HOME": str(root / "var/lib/rkllama")}

    def _make_roots(self) -> None:
        folders = ("etc/default", "etc/exo-rkllama", "etc/haproxy", "etc/prometheus", "etc/nftables.d", "opt")
        for root in self.roots.values():
            for name in (*folders, "run/haproxy", "usr/lib", "usr/local/bin"):
                (root / name).mkdir(parents=True)
        files = {
            "proc/device-tree/compatible": "maker,board\0rockchip,rk3588\0",
            "sys/kernel/debug/rknpu/version": "RKNPU driver: v0.9.8\n",
        }
        for name, text in files.items():
            path = self.roots["board"] / name
            path.parent.mkdir(parents=True)
            path.write_text(text)
        front = self.roots["proxy"] / "etc/exo-rkllama"
        names = ("-subj", "/CN=localhost", "-days", "2", "-nodes", "-newkey", "rsa:2048")
        pem = ("-keyout", front / "privkey.pem", "-out", front / "fullchain.pem")
        run_well("openssl", "req", "-x509", *names, *pem)

    def _make_clone(self) -> None:
        """What the page takes from a clone, a library and a model."""
        clone = self.folders["board"]
        clone.mkdir()
        for name in ("constraints.txt", "deploy", "packages"):
            (clone / name).symlink_to(REPOSITORY / name)
        shutil.copy(library(), clone / "librkllmrt.so")
        write_model(clone / MODEL, toolkit="1.1.4")


def place_of(block: Block) -> str:
    """Before the part about many nodes all is done on a board; later on what needs sudo, the rest as root in front."""
    is_early = not {"Many nodes", "Monitoring", "Security"} & set(block.headings)
    return "board" if is_early or "sudo " in block.text else "proxy"
