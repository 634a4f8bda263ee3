"""docs/DEPLOYMENT.md: its commands are run, in the order of the page, on the hosts of a lab with simulated boards.

A block that cannot be run here says why not, in a comment right before it; something then stands in for it.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import httpx2
import pytest

from cluster_support.load import Load, is_whole, questions
from cluster_support.network import Lab
from cluster_support.nodes import ClusterNode, all_ready
from cluster_support.programs import HaproxyProcess, PrometheusProcess
from deployment_support import BOARDS, MODEL, SUBSTITUTIONS, UNIT, Deployment
from document_support import Block, blocks_of, not_printed
from exo.cluster.inventory import Proxy
from exo.cluster.inventory_reader import read_inventory
from exo.cluster.render.haproxy import haproxy_cfg
from rkllm_facts import benchmark
from rkllm_facts.chips import CHIPS
from support import REPOSITORY, Node, wait_until

PAGE = REPOSITORY / "docs/DEPLOYMENT.md"
BLOCKS = blocks_of(PAGE)
COMMANDS = [block for block in BLOCKS if block.language == "sh"]


class Walk:
    """Through the page, from top to bottom, with what BEFORE and AFTER add."""

    def __init__(self, lab: Lab) -> None:
        self.site = Deployment(lab)
        self.lonely: Node | None = None
        self.prometheus: PrometheusProcess | None = None
        self.key = ""

    def take(self, block: Block) -> None:
        if block.language != "sh":
            return
        for words, prepare in BEFORE.items():
            if words in block.text:
                prepare(self)
        if not block.reason:
            if "update-board" in block.text:
                self.run_under_load(block)
            else:
                self.site.run(block)
        for words, follow in AFTER.items():
            if words in block.text:
                follow(self)

    def run_under_load(self, block: Block) -> None:
        """No request is lost in an update of all boards."""
        with Load(self.site.url, questions(max_tokens=20), at_once=3, key=self.key) as load:
            wait_until(lambda: len(load.finished) > 10, timeout=60, what="requests to be answered")
            self.site.run(block)
            chats = load.stop()
        assert [chat for chat in chats if not is_whole(chat)] == []

    def write_inventory(self) -> None:
        self.site.write("proxy", "etc/exo-rkllama/cluster.toml", blocks_in("toml")[0].text)

    def take_files_to_the_board(self) -> None:
        front = self.site.roots["proxy"] / "etc/exo-rkllama"
        for name in ("keys", "cluster.secret"):
            shutil.copy(front / name, self.site.folders["board"])
        self.key = (front / "nodes.key").read_text().strip()

    def start_the_board(self) -> None:
        self.lonely = self.site.start_lonely_node()

    def start_boards(self) -> None:
        if self.lonely is not None:
            self.lonely.end()
        settings = self.site.board_settings()
        assert settings["EXO_HOST"] == "0.0.0.0"
        all_ready([self.site.start_node(name, settings) for name in BOARDS])
        answer = self.site.nodes["board-1"].http.get("/v1/models")
        assert answer.status_code == 401  # the keys that the page has made count

    def start_haproxy(self) -> None:
        config = self.site.roots["proxy"] / "etc/haproxy/haproxy.cfg"
        HaproxyProcess(self.site.hosts["proxy"], config, ports=(52415, 8404))
        wait_until(lambda: self.servers_up() == set(BOARDS), timeout=30, what="HAProxy to find the boards")

    def start_newcomers(self) -> None:
        settings = self.site.board_settings()
        nodes = [
            self.site.start_node("board-4", settings),
            self.site.start_node("stranger", {**settings, "EXO_CLUSTER_SECRET_FILE": ""}),
        ]
        all_ready(nodes)
        for name, node in self.site.nodes.items():
            wait_until(partial(is_announced, node), timeout=30, what=f"{name} to be announced")

    def start_watch(self) -> None:
        host = self.site.hosts["proxy"]
        log = host.folder / "watch.log"
        host.popen(*self.site.watch_command(), log=log)
        wait_until(lambda: "board-4" in self.servers_up(), timeout=60, what="board-4 to join")
        wait_until(lambda: "unknown: stranger" in log.read_text(), timeout=60, what="the stranger to be refused")
        assert self.servers_up() == {*BOARDS, "board-4"}

    def check_who_answers(self) -> None:
        """A node that has proven itself gets requests as the others do."""
        seen: set[str] = set()

        def all_have_answered() -> bool:
            answer = self.ask(f"Question {len(seen)}")
            assert answer.status_code == 200, answer.text
            seen.add(answer.headers["x-exo-node"])
            return seen >= {*BOARDS, "board-4"}

        wait_until(all_have_answered, timeout=60, what="an answer of every board")

    def start_prometheus(self) -> None:
        config = self.site.roots["proxy"] / "etc/prometheus/prometheus.yml"
        self.prometheus = PrometheusProcess(self.site.hosts["proxy"], config)

    def wait_for_scrapes(self) -> None:
        prometheus = self.prometheus
        assert prometheus is not None
        wait_until(lambda: prometheus.value("sum(up)") == 4, timeout=60, what="nodes and HAProxy to be scraped")

    def check_tls(self) -> None:
        """With the lines that the page shows the inventory gives a proxy for HTTPS."""
        self.site.write("proxy", "etc/exo-rkllama/cluster.toml", blocks_in("toml")[1].text)
        commands = "exo cluster render haproxy -o rendered\nhaproxy -c -f rendered/haproxy.cfg\n"
        self.site.run(Block(0, "sh", "", ("Security",), commands))
        rendered = self.site.roots["proxy"] / "etc/exo-rkllama/rendered/haproxy.cfg"
        assert "ssl crt" in rendered.read_text()

    def write_firewall(self) -> None:
        self.site.write("board", "etc/nftables.d/exo.nft", blocks_in("nft")[0].text)

    def check_firewall(self) -> None:
        url = f"{self.site.nodes['board-1'].url}/ready"
        with pytest.raises(httpx2.TransportError):
            httpx2.get(url, trust_env=False, timeout=1)
        assert self.site.hosts["proxy"].run("curl", "-sf", url).returncode == 0

    def ask(self, text: str) -> httpx2.Response:
        body = {"messages": [{"role": "user", "content": text}], "max_tokens": 5}
        headers = {"authorization": f"Bearer {self.key}"}
        return httpx2.post(
            f"{self.site.url}/v1/chat/completions", json=body, headers=headers, trust_env=False, timeout=60
        )

    def servers_up(self) -> set[str]:
        """By HAProxy's metrics, in the backend of the pool itself."""
        told = self.site.hosts["proxy"].run("curl", "-s", "http://127.0.0.1:8404/metrics").stdout
        pattern = rf'^haproxy_server_status{{proxy="pool_{re.escape(MODEL)}_[0-9a-f]+",server="([^"]+)",state="UP"}} 1$'
        return set(re.findall(pattern, told, re.MULTILINE))


BEFORE: Mapping[str, Callable[[Walk], None]] = {
    "chmod 0644 cluster.toml": Walk.write_inventory,
    "install -D -m 0640 -g exo keys": Walk.take_files_to_the_board,
    "exo cluster discover": Walk.start_newcomers,
    "sum(up": Walk.wait_for_scrapes,
    "nft -c": Walk.write_firewall,
}
"""What has to be there for the block with these words."""
AFTER: Mapping[str, Callable[[Walk], None]] = {
    "systemctl enable --now exo-rkllm": Walk.start_the_board,
    "systemctl restart exo-rkllm\n": Walk.start_boards,
    "reload-or-restart haproxy": Walk.start_haproxy,
    "enable --now exo-cluster-watch": Walk.start_watch,
    "_server_status": Walk.check_who_answers,
    "reload-or-restart prometheus": Walk.start_prometheus,
    "exo.pem": Walk.check_tls,
    "nft -f": Walk.check_firewall,
}
"""What stands in for the block with these words, or checks what it has done."""


def is_announced(node: ClusterNode) -> bool:
    return "announced by mDNS" in node.process.log


def blocks_in(language: str) -> list[Block]:
    return [block for block in BLOCKS if block.language == language]


@pytest.fixture
def walk(tmp_path: Path) -> Iterator[Walk]:
    with Lab(tmp_path) as lab:
        yield Walk(lab)


@pytest.mark.system
@pytest.mark.timeout(300)
def test_the_commands_of_the_page(walk: Walk) -> None:
    for block in BLOCKS:
        walk.take(block)
    for file, mode, _ in rows("| file | mode | owner |"):
        where = "board" if "on a board" in file else "proxy"
        for name in re.findall(r"`([^`]+)`", file):
            found = [path for path in walk.site.roots[where].rglob(Path(name).name) if "rendered" not in path.parts]
            assert [f"{path.stat().st_mode & 0o7777:04o}" for path in found] == [mode], name


def test_what_prepares_and_follows_belongs_to_a_block() -> None:
    for words in [*BEFORE, *AFTER]:
        assert len([block for block in COMMANDS if words in block.text]) == 1, words


def test_every_substitution_is_needed() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert [pattern for pattern in SUBSTITUTIONS if not re.search(pattern, text)] == []


def test_every_block_is_run_or_says_why_not() -> None:
    assert {block.language for block in BLOCKS} == {"sh", "toml", "nft"}, "a block that nothing runs or compares"
    marked = [block for block in BLOCKS if block.reason]
    assert PAGE.read_text(encoding="utf-8").count("<!--") == len(marked), "a comment that belongs to no block"
    assert {block.language for block in marked} == {"sh"}
    assert len(marked) < len(COMMANDS) / 2


def test_the_blocks_of_a_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A\n<!-- not run: because -->\n```sh\none\n```\n## B\n\n```sh\ntwo\n```\n\n```text\nout 1\n```\n"
        "# C\n<!-- not run: far away -->\n\nWords.\n```sh\nthree\n```\nWords.\n```text\nno output\n```\n"
    )
    assert [(block.line, block.reason, block.headings, block.text, block.shown) for block in blocks_of(page)] == [
        (3, "because", ("A",), "one\n", ""),
        (8, "", ("A", "B"), "two\n", "out 1\n"),
        (19, "", ("C",), "three\n", ""),
        (23, "", ("C",), "no output\n", ""),
    ]


def test_outputs_are_compared_by_words() -> None:
    printed = "NODE     READY  QUEUE\nboard-1  yes    3/128\n"
    assert not_printed("NODE READY QUEUE\nboard-1  yes  0/128\n…yes…\n", printed) == []
    assert not_printed("board-1  no  0/128\nboard-1 …/1x\n", printed) == ["board-1  no  0/128", "board-1 …/1x"]


def rows(heading: str) -> list[list[str]]:
    """The first table that has these words in its head, without the head."""
    table = PAGE.read_text(encoding="utf-8").partition(heading)[2].partition("\n\n")[0]
    assert table, heading
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def test_the_measurements_are_those_of_the_vendor() -> None:
    table = rows("first token after")
    assert len(table) > 5
    for chip, named, dtype, first, speed, memory in table:
        model, params = named.rsplit(" ", 1)
        (row,) = benchmark.find(sdk_version="1.3.0", platform=chip, model=model, params=params, dtype=dtype)
        assert (row.seqlen, row.new_tokens) == (128, 64)
        assert (first, memory) == (f"{row.ttft_ms:.0f} ms", f"{row.memory_mb:.0f} MB")
        assert float(speed) == pytest.approx(row.tokens_per_s, abs=0.06)


def test_the_chips_are_those_that_are_known() -> None:
    known = {chip.name: chip for chip in CHIPS}
    for names, cores, types in rows("NPU cores that a model may use"):
        for name in names.split(", "):
            assert types.split(", ") == list(known[name].types)
            assert [int(number) for number in re.findall(r"\d", cores)] == list(known[name].npu_cores)


def test_links_to_parts_of_a_page_lead_there() -> None:
    text = PAGE.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#:]*)#([^)]+)\)", text)
    assert len(links) > 3
    for file, part in links:
        page = (PAGE.parent / file).read_text(encoding="utf-8") if file else text
        headings = [re.sub(r"[^a-z0-9 -]", "", one.lower()).replace(" ", "-") for one in _headings(page)]
        assert part in headings


def _headings(page: str) -> list[str]:
    return re.findall(r"^#+ (.+)$", page, re.MULTILINE)


def test_the_errors_of_the_proxy_are_those_that_it_has() -> None:
    text = haproxy_cfg(read_inventory(REPOSITORY / "deploy/cluster.example.toml"), "")
    codes = r'%\[var\(txn\.\w+\)\]([a-z_]+)%\[var\(txn\.end\)\]|"code":"([a-z_]+)"'
    rendered = {
        (status[1], code[1] or code[2])
        for line in text.splitlines()
        if (status := re.search(r"(?:http-error|return) status (\d+)", line)) and (code := re.search(codes, line))
    }
    assert {(status, code.strip("`")) for status, code, *_ in rows("| status | code | when |")} == rendered
    assert len(rendered) > 8


def test_numbers_and_names_of_the_page_are_those_of_the_code() -> None:
    text, proxy = PAGE.read_text(encoding="utf-8"), Proxy()
    (user,) = re.findall(r"^User=(.+)$", UNIT.read_text(encoding="utf-8"), re.MULTILINE)
    assert f"`proxy.max_body` ({proxy.max_body // 1024} KiB)" in text
    assert f'admin_user = "{user}"' in text
    assert f"`{proxy.admin_socket}` | 0600 | `{user}`" in text


def test_what_the_page_names_is_documented() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for pattern, page in (
        (r"`(Exo[A-Z]\w+|rkllm_\w+)`", "METRICS.md"),
        (r"\b((?:EXO|RKLLM)_[A-Z_]+)\b", "SETTINGS.md"),
    ):
        names = set(re.findall(pattern, text))
        assert len(names) > 3
        documented = (REPOSITORY / "docs" / page).read_text(encoding="utf-8")
        assert [name for name in names if name not in documented] == []
    for file in re.findall(r"\btests/\w+\.py", text):
        assert (REPOSITORY / file).exists()
