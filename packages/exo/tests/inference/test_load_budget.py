from __future__ import annotations

from exo.inference.load_budget import LoadBudget


def test_a_budget_saves_up_and_runs_out() -> None:
    budget = LoadBudget(burst=2, per_request=0.5, per_idle_second=0.0)
    assert budget.has(2)
    budget.spend()
    budget.spend()
    assert not budget.has(1)
    budget.earn_idle(1e9)
    assert not budget.has(1)
    for _ in range(100):
        budget.earn_request()
    assert budget.has(2)
    assert not budget.has(3), "no more than the burst is saved up"


def test_a_node_with_nothing_to_do_may_load_again() -> None:
    budget = LoadBudget(burst=1, per_request=0.0, per_idle_second=1 / 30)
    budget.spend()
    budget.earn_idle(29.0)
    assert not budget.has(1)
    budget.earn_idle(1.5)
    assert budget.has(1)


def test_no_more_than_one_load_is_owed() -> None:
    """Whoever names the effort loads without asking; the others must not pay for it for ever."""
    budget = LoadBudget(burst=2, per_request=1.0, per_idle_second=0.0)
    for _ in range(60):
        budget.spend()
    for _ in range(2):
        budget.earn_request()
    assert budget.has(1)
