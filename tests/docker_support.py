"""A Docker engine of the test's own, and an imitation of the images' base that is made of Debian's packages."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import final

from support import REPOSITORY, own_environment, run, run_well, wait_until

BASE = "python:3.12.13-slim-bookworm"
SUITE = "bookworm"
PACKAGES = "ca-certificates,python3,python3-pip,python3-venv"
PRIVATE = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
"""Mounts and processes of a command go with it, however it ends."""
_CERTIFICATES = Path("etc/ssl/certs/ca-certificates.crt")
_APT = 'Dir::Cache::pkgcache ""; Dir::Cache::srcpkgcache ""; APT::Keep-Downloaded-Packages "false";\n'
"""As in the images of Debian, which leave no caches behind."""
_PIP_SETTING = re.compile(
    r"^[\w:]+\.(index-url|extra-index-url|trusted-host|proxy|timeout|default-timeout)='(.*)'$", re.MULTILINE
)


@final
class Engine:
    """`dockerd` on a socket in a folder, apart from an engine that may run here; a context manager.

    It leaves firewall and bridges alone: builds use the network of this machine, published ports go through a process.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="exo-docker-"))  # short, as sockets lie in it
        plugins = self.folder / "config/cli-plugins"
        plugins.mkdir(parents=True)
        (plugins / "docker-compose").symlink_to(compose())
        self.env = {"DOCKER_HOST": f"unix://{self.folder}/socket", "DOCKER_CONFIG": str(plugins.parent)}
        self._log = self.folder / "log"
        (self.folder / "daemon.json").write_text("{}")
        places = {"data-root": "data", "exec-root": "exec", "pidfile": "pid", "config-file": "daemon.json"}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *PRIVATE,
                    "dockerd",
                    f"--host={self.env['DOCKER_HOST']}",
                    "--bridge=none",
                    *(f"--{name}=false" for name in ("iptables", "ip6tables", "ip-forward")),
                    *(f"--{name}={self.folder / place}" for name, place in places.items()),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            wait_until(self._answers, timeout=60, what="the engine answers")
        except BaseException:  # also Ctrl-C: no engine may be left over
            self.end()
            raise

    def docker(self, *arguments: str | Path, **options: float) -> str:
        """What the command prints; the exit code has to be 0."""
        return run_well("docker", *arguments, env=self.env, timeout=options.get("timeout", 300))

    def try_docker(self, *arguments: str | Path, env: Mapping[str, str] | None = None) -> tuple[int, str]:
        """The exit code, and what was printed to stdout and stderr."""
        done = run("docker", *arguments, env={**self.env, **(env or {})}, timeout=120)
        return done.returncode, done.stdout + done.stderr

    def inspect(self, what: str, template: str) -> str:
        return self.docker("inspect", "--format", template, what).strip()

    def take_base(self) -> None:
        """Make the base of the images and keep it under its name, so that no registry is asked for it."""
        root = self.folder / "root"
        make_root(root)
        path = "PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
        with subprocess.Popen(["tar", "-C", root, "-c", "."], stdout=subprocess.PIPE) as tar:
            command = ("docker", "import", "--change", f"ENV {path}", "-", BASE)
            subprocess.run(command, stdin=tar.stdout, env={**os.environ, **self.env}, check=True, capture_output=True)
        assert tar.returncode == 0
        shutil.rmtree(root)

    def end(self) -> None:
        """Containers and networks go first, for the latter are this machine's."""
        if self._process.poll() is None:
            with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
                if containers := self.docker("ps", "--all", "--quiet").split():
                    self.docker("rm", "--force", "--volumes", *containers)
                self.docker("network", "prune", "--force")
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def _answers(self) -> bool:
        assert self._process.poll() is None, self._log.read_text()
        return run("docker", "version", env=self.env).returncode == 0


def compose() -> Path:
    """The program of Docker Compose 2."""
    python = own_environment(REPOSITORY / "tests/docker")
    folder = run_well(python, "-c", "import compose; print(compose.__path__[0])").strip()
    return Path(folder) / "docker-compose"


def mirror() -> str:
    """Where this machine's apt gets the suite from."""
    lines = run_well("apt-get", "indextargets", "Created-By: Packages", "--format", "$(RELEASE) $(REPO_URI)").split(
        "\n"
    )
    found = [line.split()[1] for line in lines if line.startswith(f"{SUITE} ")]
    assert found, f"apt knows no mirror of {SUITE}"
    return found[0]


def make_root(folder: Path) -> None:
    """A clean Debian with Python, and with how this machine reaches the package index."""
    command = ("debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, folder, mirror())
    run_well(*PRIVATE, *command, timeout=600)
    (folder / "usr/local/bin/python").symlink_to("/usr/bin/python3")
    (folder / "etc/apt/apt.conf.d/docker-clean").write_text(_APT)
    run_well("chroot", folder, "apt-get", "clean")
    shutil.copy(os.environ.get("PIP_CERT", Path("/") / _CERTIFICATES), folder / _CERTIFICATES)
    listed = run_well(sys.executable, "-m", "pip", "config", "list")
    settings = {name.removeprefix("default-"): value for name, value in _PIP_SETTING.findall(listed)}
    # folders of this machine are not in there
    reached = {name: value for name, value in settings.items() if "file:" not in value}
    lines = ["[global]", f"cert = /{_CERTIFICATES}", *(f"{name} = {value}" for name, value in reached.items())]
    (folder / "etc/pip.conf").write_text("\n".join(lines) + "\n")


def copy_context(folder: Path) -> Path:
    """What of this repository the images are made from, with nothing that others may have put there."""
    ignored = shutil.ignore_patterns("__pycache__", "*.whl", ".env", "config", "models")
    for name in ("deploy/docker", "packages"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=ignored if name.startswith("deploy") else None)
    for name in ("constraints.txt", ".dockerignore"):
        shutil.copy(REPOSITORY / name, folder)
    return folder


def wheel_of(source: Path, folder: Path) -> Path:
    """A wheel of what lies in `source` with its .dist-info, which needs neither a build nor an index."""
    (info,) = source.glob("*.dist-info")
    (info / "WHEEL").write_text("Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    files = sorted(path for path in source.rglob("*") if path.is_file() and path.name != "RECORD")
    (info / "RECORD").write_text("".join(f"{path.relative_to(source)},,\n" for path in [*files, info / "RECORD"]))
    wheel = folder / f"{info.name.removesuffix('.dist-info')}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path in [*files, info / "RECORD"]:
            archive.write(path, path.relative_to(source))
    return wheel
