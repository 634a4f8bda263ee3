"""cluster.toml: what is in force, and what is said of mistakes."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from exo.cluster.inventory import Inventory, InventoryNode
from exo.cluster.inventory_check import InventoryFault
from exo.cluster.inventory_reader import admin_key, nodes_key, parse_inventory, read_inventory
from exo.types import ConfigurationError

EXAMPLE = Path(__file__).parents[4] / "deploy/cluster.example.toml"
ONE = '[[nodes]]\nname = "a"\naddress = "192.0.2.1"\nmodels = ["m"]\n'


def two(second: str) -> str:
    return f"{ONE}[[nodes]]\n{second}\n"


def test_the_example_says_what_is_in_force() -> None:
    """Its keys with values are the usual ones, so that nobody has to look for them elsewhere."""
    example = read_inventory(EXAMPLE)
    assert [node.name for node in example.nodes] == ["board-1", "board-2", "board-3"]
    assert example.nodes[0] == InventoryNode(
        name="board-1",
        address="192.0.2.11",
        models=("qwen2.5-1.5b-instruct",),
        labels={"rack": "left", "chip": "rk3588"},
    )
    assert example.proxy == Inventory(nodes=example.nodes).proxy


def test_the_example_has_every_key() -> None:
    """Also those that are commented out, which are valid once they are not."""
    text = EXAMPLE.read_text(encoding="utf-8")
    uncommented = re.sub(r"^# (?=\[|[a-z_]+ = |\"[^\"]+\" = )", "", text, flags=re.MULTILINE)
    for name in ("nodes_file", "admin_file"):
        uncommented = re.sub(
            rf'^{name} = "[^"]+"', f'{name.removesuffix("_file")} = "key"', uncommented, flags=re.MULTILINE
        )
    whole = parse_inventory(uncommented)
    assert [node.name for node in whole.nodes] == ["board-1", "board-2", "board-3", "board-4"]
    assert whole.nodes[3].port == 8080
    assert whole.aliases == {"qwen2.5:1.5b": "qwen2.5-1.5b-instruct"}
    assert whole.tls is not None
    keys = {field.name for kind in (whole, whole.proxy, whole.nodes[0]) for field in msgspec.structs.fields(kind)}
    assert [key for key in keys if not re.search(rf"\b{key}\b", text)] == []


def test_defaults_are_for_nodes_that_do_not_say_otherwise() -> None:
    own = 'name = "b"\naddress = "192.0.2.2"\nport = 52415\nslots = 1'
    found = parse_inventory(f'[defaults]\nport = 8080\nslots = 4\nmodels = ["d"]\nweight = 7\n{two(own)}')
    assert [(node.port, node.slots, node.models, node.weight) for node in found.nodes] == [
        (8080, 4, ("m",), 7),
        (52415, 1, ("d",), 7),
    ]
    assert found.models == ("m", "d")


def test_key_files_begin_at_the_inventory(tmp_path: Path) -> None:
    (tmp_path / "nodes.key").write_text("exo-1\n")
    (tmp_path / "cluster.toml").write_text(f'secret_file = "s"\n{ONE}[keys]\nnodes_file = "nodes.key"\nadmin = "exo-2"')
    found = read_inventory(tmp_path / "cluster.toml")
    assert (nodes_key(found), admin_key(found), found.secret_file) == ("exo-1", "exo-2", str(tmp_path / "s"))
    (tmp_path / "cluster.toml").write_text(f'{ONE}[keys]\nnodes_file = "nodes.key"')
    assert admin_key(read_inventory(tmp_path / "cluster.toml")) == "exo-1"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "nodes: this key has to be there."),
        ("nodes = []", "nodes: expected array of length >= 1."),
        ('nodes = "a"', "nodes: expected array, got str."),
        ('[[nodes]]\nname = "a"', "nodes[0].address: this key has to be there."),
        (f"{ONE}prt = 1", "nodes[0].prt: there is no such key, did you mean port?"),
        (f"{ONE}zzz = 1", "nodes[0].zzz: there is no such key; there are name, address, port, slots, models, weight,"),
        (f"{ONE}[proxy]\nprt = 1", "proxy.prt: there is no such key, did you mean port?"),
        (f"{ONE}[prxy]", "prxy: there is no such key, did you mean proxy?"),
        (f"{ONE}port = 70000", "nodes[0].port: expected int <= 65535."),
        (f'{ONE}port = "1"', "nodes[0].port: expected int, got str."),
        (f"{ONE}slots = 0", "nodes[0].slots: expected int >= 1."),
        (f"{ONE}weight = 257", "nodes[0].weight: expected int <= 256."),
        (ONE.replace('"m"', '"m n"'), "nodes[0].models[0]: expected letters, digits and . _ : / @ + -, beginning"),
        (ONE.replace('"m"', '"m\'"'), "nodes[0].models[0]: expected letters"),
        (ONE.replace('"m"', '"Auto"'), "nodes[0].models[0]: auto stands for any model."),
        (ONE.replace('["m"]', "[]"), "nodes[0].models: expected array of length >= 1."),
        ('[[nodes]]\nname = "a"\naddress = "b"', "nodes[0].models: this key has to be there, here or in defaults."),
        (ONE.replace('"a"', '"BACKEND"'), "nodes[0].name: BACKEND is a word of HAProxy's own."),
        (ONE.replace("192.0.2.1", "a b"), "nodes[0].address: expected an IP address or a host name, without a port."),
        (f'{ONE}labels = {{ node = "x" }}', "nodes[0].labels.node: the metrics have this label already."),
        (
            f'{ONE}labels = {{ "1x" = "x" }}',
            "nodes[0].labels: keys here are letters, digits and _,",
        ),
        (two('name = "A"\naddress = "b"\nmodels = ["m"]'), "nodes[1].name: nodes[0] has this name already;"),
        (
            two('name = "b"\naddress = "192.0.2.1"\nmodels = ["m"]'),
            "nodes[1].address: nodes[0] has this address and port already.",
        ),
        (f'{ONE}[aliases]\nx = "y"', "aliases.x: no node has the model y; there are m."),
        (f'{ONE}[aliases]\nM = "m"', "aliases.M: a node has a model of that name."),
        (f'{ONE}[aliases]\nauto = "m"', "aliases.auto: auto stands for any model."),
        (f"{ONE}[proxy]\nport = 80\nmetrics_port = 80", "proxy.metrics_port: proxy.port has this port already."),
        (f"{ONE}[proxy]\nqueue_timeout = 0", "proxy.queue_timeout: expected int >= 1."),
        (f'{ONE}[proxy]\nadmin_socket = "a.sock"', "proxy.admin_socket: expected a path that begins with /"),
        (f"{ONE}[tls]", "tls.certificate: this key has to be there."),
        (f'{ONE}[keys]\nadmin = "a"\nadmin_file = "b"', "keys.admin_file: keys.admin is given already,"),
        (ONE.replace("192.0.2.1", "192.0.2.1:80"), "nodes[0].address: 192.0.2.1:80 is no IP address; a port goes into"),
        (ONE.replace("192.0.2.1", "192.0.2.311"), "nodes[0].address: 192.0.2.311 is no IP address."),
        (ONE.replace("192.0.2.1", "::::"), "nodes[0].address: :::: is no IP address."),
        (f'{ONE}[proxy]\naddress = "1.2.3"', "proxy.address: 1.2.3 is no IP address."),
        (ONE.replace('"a"', '"a\\n"'), "nodes[0].name: expected letters"),
        (ONE.replace('"192.0.2.1"', '"192.0.2.1\\n"'), "nodes[0].address: expected an IP address"),
        (two('name = "b"\naddress = "b"\nmodels = ["M"]'), "nodes[1].models[0]: m is another model with"),
        (two('name = "b"\naddress = "b"\nmodels = ["m:latest"]'), "nodes[1].models[0]: m is another model"),
        (ONE.replace('"m"', '"auto:latest"'), "nodes[0].models[0]: auto stands for any model."),
        (f'{ONE}[aliases]\n"m:latest" = "m"', "aliases.m:latest: a node has a model of that name."),
        (f'{ONE}[aliases]\nx = "m"\nX = "m"', "aliases.X: it is the same as x."),
        (f'{ONE}[keys]\nstats = "password"', "keys.stats: expected USER:PASSWORD"),
        (f"{ONE}secret_file = 1", "nodes[0].secret_file: there is no such key"),
    ],
)
def test_a_mistake_is_named_by_its_key(text: str, said: str) -> None:
    with pytest.raises(InventoryFault) as raised:
        parse_inventory(text)
    assert str(raised.value).startswith(f": {said}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('name = "a"\nname = "b"\n', ", line 2"),
        ("[proxy]\nport = = 3", ", line 2, column 8: Invalid value."),
        ("[[nodes]\n", ", line 1, column 8: Expected"),
        ('name = "a\n', ", line 1"),
    ],
)
def test_what_is_no_toml_is_named_by_its_line(text: str, said: str) -> None:
    with pytest.raises(InventoryFault) as raised:
        parse_inventory(text)
    assert str(raised.value).startswith(said)


def test_the_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cluster.toml"
    with pytest.raises(ConfigurationError, match=re.escape(f"There is no inventory {path}. Name it with -i, ")):
        read_inventory(path)
    with pytest.raises(ConfigurationError, match=re.escape(f"{tmp_path} cannot be read: Is a directory.")):
        read_inventory(tmp_path)
    path.write_bytes(b'name = "a"\n\xff')
    with pytest.raises(ConfigurationError, match=re.escape(f"{path}, line 2: this is not UTF-8.")):
        read_inventory(path)
    path.write_text(f"{ONE}port = 0")
    with pytest.raises(ConfigurationError, match=re.escape(f"{path}: nodes[0].port: expected int >= 1.")):
        read_inventory(path)
    path.write_text("port = ")
    with pytest.raises(ConfigurationError, match=re.escape(f"{path}, line 1")):
        read_inventory(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "has to hold one key on one line"),
        (b"two words", "has to hold one key on one line"),
        (b"two\nlines", "has to hold one key on one line"),
        (b"\xff", "cannot be read: it is not UTF-8"),
        (None, "cannot be read: No such file"),
    ],
)
def test_a_key_file_is_read_where_it_is_needed_and_holds_one_key(
    tmp_path: Path, content: bytes | None, said: str
) -> None:
    if content is not None:
        (tmp_path / "k").write_bytes(content)
    (tmp_path / "cluster.toml").write_text(f'{ONE}[keys]\nadmin_file = "k"')
    inventory = read_inventory(tmp_path / "cluster.toml")
    assert nodes_key(inventory) is None
    with pytest.raises(ConfigurationError, match=re.escape(f"The file {tmp_path / 'k'} of keys.admin_file {said}")):
        admin_key(inventory)


def test_the_lists_of_models_of_a_cluster_are_few() -> None:
    nodes = [f'[[nodes]]\nname = "n{n}"\naddress = "h{n}"\nmodels = ["m{n}"]\n' for n in range(33)]
    assert len(parse_inventory("".join(nodes[:32])).nodes) == 32
    with pytest.raises(InventoryFault, match="more than 32 different lists of models"):
        parse_inventory("".join(nodes))


@pytest.mark.parametrize(
    ("text", "said"), [(f"a = {'[' * 100_000}", "nested too deeply"), (f"a = {'9' * 5000}", "too many digits")]
)
def test_what_python_cannot_take_is_a_fault_of_the_file(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "cluster.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=said):
        read_inventory(path)
