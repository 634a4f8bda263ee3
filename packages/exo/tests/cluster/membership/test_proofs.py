from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from cluster_nodes import SECRET, answered, member_node, stranger

from exo.cluster.membership import proofs as module
from exo.cluster.membership.announcement import NodeDescription
from exo.cluster.membership.mdns import Sighting
from exo.cluster.membership.proofs import Proofs
from exo.cluster.membership.verification import Refused, Verified, verify

HERE = "127.0.0.1"


@pytest.fixture
async def proofs(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Proofs]:
    monkeypatch.setattr(module, "_AGAIN", 0.01)
    monkeypatch.setattr(module, "_SOON", 0.01)
    made = Proofs()
    yield made
    await made.close()


def sighting(port: int, name: str = "real") -> Sighting:
    return Sighting("i", NodeDescription(name), (HERE,), port)


async def until(proofs: Proofs, condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.wait_for(proofs.changed.wait(), 20)
        proofs.changed.clear()


async def refuse(body: bytes) -> bytes:
    return answered(b"{}", b"404 Not Found")


async def test_a_node_in_sight_is_asked_and_forgotten_when_it_has_gone(proofs: Proofs) -> None:
    async with member_node() as node:
        proofs.see({"i": sighting(node.port)}, SECRET)
        await asyncio.wait_for(proofs.changed.wait(), 20)
        assert isinstance(proofs.found["i"], Verified)
    proofs.see({}, SECRET)
    await until(proofs, lambda: not proofs.found)
    assert proofs.sightings == {}


async def test_a_forged_goodbye_does_not_harm_a_node_that_proves_itself(proofs: Proofs) -> None:
    answers: asyncio.Queue[object] = asyncio.Queue()

    async def noted(*args: Any) -> Verified | Refused:
        answers.put_nowait(answer := await verify(*args))
        return answer

    async with member_node() as node:
        seen = {"i": sighting(node.port)}
        proofs.see(seen, SECRET)
        await until(proofs, lambda: "i" in proofs.found)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "verify", noted)
            proofs.see({}, SECRET)
            for _ in range(3):
                assert isinstance(await asyncio.wait_for(answers.get(), 20), Verified)
        assert (proofs.sightings, list(proofs.found)) == (seen, ["i"])
        proofs.see({}, SECRET)
        assert list(proofs.found) == ["i"]
    await until(proofs, lambda: not proofs.found)


async def test_a_node_that_ends_goes_with_its_goodbye_while_it_still_answers(proofs: Proofs) -> None:
    async with member_node() as node:
        proofs.see({"i": sighting(node.port)}, SECRET)
        await until(proofs, lambda: "i" in proofs.found)
        node.service.leaving.set()
        proofs.see({}, SECRET)
        await until(proofs, lambda: not proofs.found)
        assert proofs.latest == {}


async def test_a_stranger_goes_with_its_goodbye(proofs: Proofs) -> None:
    async with stranger(refuse) as port:
        proofs.see({"i": sighting(port)}, SECRET)
        await until(proofs, lambda: "i" in proofs.found)
        proofs.see({}, SECRET)
        assert (proofs.found, proofs.sightings) == ({}, {})


async def test_a_new_announcement_of_the_same_node_takes_the_place_of_the_old_one(proofs: Proofs) -> None:
    async with member_node() as node:
        proofs.see({"i": sighting(node.port)}, SECRET)
        await until(proofs, lambda: "i" in proofs.found)
        proofs.see({"j": sighting(node.port)}, SECRET)
        await until(proofs, lambda: list(proofs.found) == ["j"])
        assert list(proofs.sightings) == ["j"]


async def test_without_a_secret_nobody_is_asked(proofs: Proofs) -> None:
    asked = []

    async def answer(body: bytes) -> bytes:
        asked.append(body)
        return await refuse(body)

    async with stranger(answer) as port:
        proofs.see({"i": sighting(port)}, None)
        await asyncio.sleep(0)
        assert not [task for task in asyncio.all_tasks() if "proof" in task.get_name()]
        proofs.see({"i": sighting(port)}, SECRET)
        await until(proofs, lambda: "i" in proofs.found)
        proofs.see({"i": sighting(port)}, None)
        assert proofs.found == {}


async def test_a_proven_node_that_does_not_answer_keeps_its_standing(proofs: Proofs) -> None:
    async with member_node() as node:
        seen = sighting(node.port)
        proofs.see({"i": seen}, SECRET)
        await until(proofs, lambda: "i" in proofs.found)
    questions: asyncio.Queue[None] = asyncio.Queue()

    async def verify(*args: object) -> Refused:
        questions.put_nowait(None)
        return Refused("nobody is there", reachable=False)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "verify", verify)
        for _ in range(3):
            await asyncio.wait_for(questions.get(), 20)
        assert isinstance(proofs.found["i"], Verified)


async def test_what_others_announce_under_its_name_does_not_harm_it(
    proofs: Proofs, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: asyncio.Queue[Verified | Refused] = asyncio.Queue()

    async def noted(*args: Any) -> Verified | Refused:
        answers.put_nowait(answer := await verify(*args))
        return answer

    async with member_node() as node, stranger(refuse) as port:
        proofs.see({"i": sighting(node.port)}, SECRET)
        await until(proofs, lambda: "i" in proofs.found)
        before = proofs.found["i"]
        monkeypatch.setattr(module, "verify", noted)
        proofs.see({"i": sighting(port)}, SECRET)
        for _ in range(3):
            assert await asyncio.wait_for(answers.get(), 20) == before
        assert proofs.found["i"] == before


async def test_a_node_that_loses_the_secret_loses_its_standing(proofs: Proofs) -> None:
    async with member_node() as node:
        proofs.see({"i": sighting(node.port)}, SECRET)
        await until(proofs, lambda: isinstance(proofs.found.get("i"), Verified))
        proofs.see({"i": sighting(node.port)}, SECRET + b"new")
        await until(proofs, lambda: isinstance(proofs.found.get("i"), Refused))


async def test_who_proves_himself_later_comes_later(proofs: Proofs) -> None:
    async with member_node() as node, stranger(refuse) as port:
        sightings = {"early": sighting(port), "other": sighting(node.port)}
        proofs.see(sightings, SECRET)
        await until(proofs, lambda: len(proofs.found) == 2)
        proofs.see({**sightings, "early": sighting(node.port)}, SECRET)
        await until(proofs, lambda: isinstance(proofs.found["early"], Verified))
        assert list(proofs.found) == ["other", "early"]
