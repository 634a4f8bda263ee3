from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from exo.inference import NodeMetrics
from exo.inference.accounts import Accounts, TokenBudget
from exo.inference.caller import Caller, asking, current_caller
from exo.types import AdminRequired, KeyLimitReached


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def accounts(registry: CollectorRegistry, clock: Clock) -> Accounts:
    return Accounts(NodeMetrics(registry), clock=clock)


def test_the_caller_is_known_inside_and_nobody_outside() -> None:
    with asking(Caller("alice")):
        with asking(Caller("bob")):
            assert current_caller().name == "bob"
        assert current_caller().name == "alice"
    assert current_caller() == Caller()


def test_only_an_admin_has_what_an_admin_needs() -> None:
    Caller("alice").need_admin()
    with pytest.raises(AdminRequired, match="'bob'"):
        Caller("bob", admin=False).need_admin()


def test_a_key_has_no_more_requests_under_way_than_it_may(accounts: Accounts) -> None:
    alice, bob = Caller("alice", requests=2), Caller("bob", requests=1)
    accounts.open(alice)
    accounts.open(alice)
    with pytest.raises(KeyLimitReached, match="2, as many as it may have") as caught:
        accounts.open(alice, mean_run=6.2)
    assert caught.value.retry_after == 7
    accounts.open(bob)
    accounts.close(alice, prompt=0, completion=0)
    accounts.open(alice)


def test_the_time_after_which_a_place_may_be_free_is_a_minute_at_most(accounts: Accounts) -> None:
    accounts.open(Caller("alice", requests=1))
    for mean_run, seconds in [(1000.0, 60), (0.01, 1)]:
        with pytest.raises(KeyLimitReached) as caught:
            accounts.open(Caller("alice", requests=1), mean_run=mean_run)
        assert caught.value.retry_after == seconds


def test_a_key_that_has_spent_its_tokens_waits_until_the_debt_is_filled_up(accounts: Accounts, clock: Clock) -> None:
    alice = Caller("alice", tokens=600)
    accounts.open(alice)
    accounts.close(alice, prompt=500, completion=400)
    with pytest.raises(KeyLimitReached, match="600 tokens per minute") as caught:
        accounts.open(alice)
    assert caught.value.retry_after == 31, "300 tokens of debt and one to spend, at 10 a second"
    clock.now += 30
    with pytest.raises(KeyLimitReached):
        accounts.open(alice)
    clock.now += 1
    accounts.open(alice)


def test_one_key_does_not_spend_for_another(accounts: Accounts) -> None:
    accounts.open(Caller("alice", tokens=10))
    accounts.close(Caller("alice", tokens=10), prompt=1000, completion=0)
    accounts.open(Caller("bob", tokens=10))


def test_a_limit_that_has_changed_counts_from_then_on(accounts: Accounts) -> None:
    accounts.open(Caller("alice", tokens=10))
    accounts.close(Caller("alice", tokens=10), prompt=50, completion=0)
    with pytest.raises(KeyLimitReached) as caught:
        accounts.open(Caller("alice", tokens=600))
    assert caught.value.retry_after == 5, "41 tokens at 10 a second"
    accounts.open(Caller("alice"))
    accounts.open(Caller("alice", tokens=10))


def test_a_caller_without_a_name_is_neither_limited_nor_counted(
    accounts: Accounts, registry: CollectorRegistry
) -> None:
    for _ in range(100):
        accounts.open(Caller(requests=1, tokens=1))
        accounts.close(Caller(requests=1, tokens=1), prompt=9, completion=9)
    assert [sample for family in registry.collect() for sample in family.samples if "key" in sample.labels] == []


def test_what_a_key_has_spent_and_has_under_way_is_in_the_metrics(
    accounts: Accounts, registry: CollectorRegistry
) -> None:
    alice = Caller("alice")
    accounts.open(alice)
    accounts.open(alice)
    accounts.close(alice, prompt=7, completion=3)
    value = registry.get_sample_value
    assert value("exo_key_requests_in_flight", {"key": "alice"}) == 1
    assert value("exo_key_tokens_total", {"key": "alice", "kind": "prompt"}) == 7
    assert value("exo_key_tokens_total", {"key": "alice", "kind": "completion"}) == 3


def test_a_refused_request_is_not_under_way(accounts: Accounts, registry: CollectorRegistry) -> None:
    alice = Caller("alice", requests=1)
    accounts.open(alice)
    with pytest.raises(KeyLimitReached):
        accounts.open(alice)
    assert registry.get_sample_value("exo_key_requests_in_flight", {"key": "alice"}) == 1


LIMIT = 60


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 500)), max_size=60))
def test_nobody_gets_more_than_the_limit_over_a_long_time(asked: list[tuple[int, int]]) -> None:
    """Requests one after the other, each after a pause: what was spent before the last one is within the limit."""
    now, budget, spent = 0, TokenBudget(LIMIT, 0), 0
    for pause, tokens in asked:
        now += pause
        if not budget.wait(now):
            assert spent < LIMIT + LIMIT * now / 60
            budget.spend(tokens, now)
            spent += tokens


@given(st.integers(1, 1000), st.integers(0, 100_000), st.integers(0, 100))
def test_after_the_time_that_was_said_a_token_may_be_spent_and_not_before(limit: int, spent: int, later: int) -> None:
    budget = TokenBudget(limit, 0)
    budget.spend(spent, 0)
    wait = budget.wait(later)
    assert (wait == 0) == (limit - spent + min(spent, later * limit / 60) >= 1)
    if wait > 0.001:
        assert budget.wait(later + wait - 0.0005) > 0
    assert budget.wait(later + wait + 0.0005) == 0


def test_what_is_spent_counts_from_the_moment_when_it_is_spent() -> None:
    budget = TokenBudget(LIMIT, 0)
    budget.spend(LIMIT, 30)
    assert [budget.wait(now) for now in (30, 30.5, 31)] == [1, 0.5, 0]


def test_what_is_not_spent_is_not_saved_for_more_than_a_minute() -> None:
    budget = TokenBudget(LIMIT, 0)
    assert budget.wait(100_000) == 0
    budget.spend(LIMIT, 100_000)
    assert budget.wait(100_000) == 1
