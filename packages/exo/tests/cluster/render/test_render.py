"""The rendered files as text; tests/cluster has them checked and run by their programs."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from exo.cluster.inventory_reader import parse_inventory
from exo.cluster.render import KINDS, RenderedFile, render
from exo.cluster.render.nginx import nginx_conf
from exo.types import ConfigurationError

ONE = '[[nodes]]\nname = "a"\naddress = "192.0.2.1"\nmodels = ["m"]\nslots = 2\nweight = 3\n'
SECRET = '[keys]\nnodes = "exo-key"\nadmin = "not-shown"\nstats = "me:word"\n'


def rendered(folder: Path, kind: str, text: str) -> dict[str, RenderedFile]:
    folder.mkdir(exist_ok=True)
    (folder / "cluster.toml").write_text(text)
    return {file.name: file for file in render(kind, folder / "cluster.toml")}


@pytest.mark.parametrize("kind", KINDS)
def test_equal_inventories_give_equal_files(tmp_path: Path, kind: str) -> None:
    first, second = (rendered(tmp_path / name, kind, ONE) for name in ("one", "two"))
    assert {name: file.text for name, file in first.items()} == {name: file.text for name, file in second.items()}
    main = first[{"haproxy": "haproxy.cfg", "nginx": "nginx.conf", "prometheus": "prometheus.yml"}[kind]]
    assert main.text.startswith(f"# Made with:  exo cluster render {kind} -i cluster.toml\n# by exo ")
    other = rendered(tmp_path / "one", kind, f"{ONE}\n# a remark")[main.name]
    assert other.text.split("\n")[2:] == main.text.split("\n")[2:]
    assert other.text != main.text


@pytest.mark.parametrize(
    ("kind", "secret"),
    [("haproxy", {"haproxy.cfg": "me:word"}), ("nginx", {}), ("prometheus", {"prometheus.yml": "exo-key"})],
)
def test_a_file_with_a_secret_is_for_its_owner_only(tmp_path: Path, kind: str, secret: dict[str, str]) -> None:
    for name, file in rendered(tmp_path / "in", kind, ONE + SECRET).items():
        path = file.write(tmp_path / "new" / "out")
        assert path.read_text() == file.text
        assert stat.S_IMODE(path.stat().st_mode) == (0o600 if name in secret else 0o644)
        assert secret.get(name, "") in file.text
        assert "not-shown" not in file.text
    plain = rendered(tmp_path / "in", kind, ONE)
    modes = {stat.S_IMODE(file.write(tmp_path / "new" / "out").stat().st_mode) for file in plain.values()}
    assert modes == {0o644}


@pytest.mark.parametrize("folder", ["file", "file/below"])
def test_a_file_in_the_place_of_the_folder(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=rf"/nginx\.conf cannot be written: .*/{folder} is no folder"):
        RenderedFile("nginx.conf", "").write(tmp_path / folder)


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "nginx.conf").mkdir()
    with pytest.raises(ConfigurationError, match=r"nginx\.conf cannot be written: Is a directory\."):
        RenderedFile("nginx.conf", "").write(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["nginx.conf"]


def test_nginx_takes_like_nodes_only() -> None:
    other = '[[nodes]]\nname = "b"\naddress = "192.0.2.2"\nmodels = ["n", "o"]\n'
    with pytest.raises(ConfigurationError, match="different ones: m; n, o"):
        nginx_conf(parse_inventory(ONE + other), "")


def test_what_the_numbers_of_an_inventory_become(tmp_path: Path) -> None:
    numbers = "[proxy]\nmax_body = 100000\nqueue_timeout = 17\nanswer_timeout = 18\nslow_start = 19\nport = 81\n"
    numbers += "conversation_memory = 20\nmax_connections = 21\n"
    haproxy = rendered(tmp_path, "haproxy", ONE + numbers)["haproxy.cfg"].text
    for line in (
        "server a 192.0.2.1:52415 maxconn 2 weight 3 tcp-ut 5s check ",
        "slowstart 19s",
        "tune.bufsize 165536",
        "req.body_size gt 100000",
        "timeout queue 17s",
        "timeout client 18s",
        "timeout server 18s",
        "expire 20s",
        "maxconn 21\n",
        "bind 0.0.0.0:81\n",
    ):
        assert line in haproxy
    nginx = rendered(tmp_path, "nginx", ONE + numbers)["nginx.conf"].text
    for line in (
        "server 192.0.2.1:52415 weight=6 max_fails=3",
        "client_max_body_size 100000;",
        "proxy_read_timeout 18s;",
        "proxy_send_timeout 18s;",
        "worker_connections 42;",
        "listen 0.0.0.0:81;",
    ):
        assert line in nginx


def test_five_minutes_are_the_usual_time_out(tmp_path: Path) -> None:
    assert "timeout server 300s" in rendered(tmp_path, "haproxy", ONE)["haproxy.cfg"].text
    nginx = rendered(tmp_path, "nginx", ONE)["nginx.conf"].text
    for line in (
        "proxy_read_timeout 300s;",
        "proxy_buffering off;",
        "least_conn;",
        "proxy_next_upstream error timeout http_429 non_idempotent",
    ):
        assert line in nginx


def test_addresses_of_version_6(tmp_path: Path) -> None:
    text = ONE.replace("192.0.2.1", "2001:db8::1") + '[proxy]\naddress = "::"\nmetrics_address = "::"\n'
    haproxy = rendered(tmp_path, "haproxy", text)["haproxy.cfg"].text
    assert "server a [2001:db8::1]:52415 " in haproxy
    assert "bind [::]:52415\n" in haproxy
    prometheus = rendered(tmp_path, "prometheus", text)["prometheus.yml"].text
    assert '["[2001:db8::1]:52415"]' in prometheus
    assert '["[::1]:8404"]' in prometheus
