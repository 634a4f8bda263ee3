"""The examples of deploy/haproxy and deploy/nginx: the programs accept them, and their pages are right about them.

That they are what the code makes is checked in test_monitoring_files.py, with all that tools/render_deploy.py writes.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from support import EXO, REPOSITORY, fenced_blocks, run, run_well

DEPLOY = REPOSITORY / "deploy"
HAPROXY = DEPLOY / "haproxy/haproxy.cfg"
NGINX = DEPLOY / "nginx/exo-load-balancer.conf"
AROUND = "pid {folder}/nginx.pid;\nevents {{ }}\nhttp {{\n    include {folder}/conf.d/*.conf;\n}}\n"


@pytest.mark.parametrize("file", [HAPROXY, NGINX])
def test_the_example_says_how_it_was_made(file: Path) -> None:
    begin = file.read_text(encoding="utf-8").splitlines()[:2]
    assert "deploy/cluster.example.toml" in begin[0]
    assert "exo cluster render" in begin[1]
    assert all(line.startswith("#") for line in begin)


@pytest.mark.parametrize("file", [HAPROXY, NGINX])
def test_the_page_names_the_file_and_its_ports(file: Path) -> None:
    text = (file.parent / "README.md").read_text(encoding="utf-8")
    assert {one.name for one in file.parent.iterdir()} == {file.name, "README.md"}
    assert f"`{file.name}`" in text
    ports = re.findall(r"^ +(?:bind|listen) .*:(\d+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    assert ports
    assert all(port in text for port in ports)


@pytest.mark.system
def test_haproxy_accepts_the_example() -> None:
    done = run("haproxy", "-c", "-f", HAPROXY, cwd=Path("/"))
    assert (done.returncode, "warn" in (done.stdout + done.stderr).lower()) == (0, False), done.stderr


@pytest.mark.system
def test_nginx_accepts_the_example_among_its_own_files(tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    shutil.copy(NGINX, tmp_path / "conf.d")
    main = tmp_path / "nginx.conf"
    main.write_text(AROUND.format(folder=tmp_path))
    done = run("nginx", "-t", "-e", "stderr", "-c", main)
    assert (done.returncode, "warn" in done.stderr) == (0, False), done.stderr


@pytest.mark.system
@pytest.mark.parametrize("kind", ["haproxy", "nginx"])
def test_the_commands_of_the_page_make_a_file_and_check_it(kind: str, tmp_path: Path) -> None:
    shutil.copy(DEPLOY / "cluster.example.toml", tmp_path / "cluster.toml")
    make_and_check, *others = fenced_blocks(DEPLOY / kind / "README.md", "sh")
    run_well("bash", "-eu", "-c", f'PATH="{EXO.parent}:/usr/sbin:$PATH"\n{make_and_check}', cwd=tmp_path)
    assert others
    for block in others:
        run_well("bash", "-n", "-c", block)
