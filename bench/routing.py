"""How often the automatic choice finds the right role on labelled prompts, and how long a decision takes."""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from exo.inference.choice import Candidate, Situation
from exo.routing import Router, read_rules
from exo.types import ChatRequest, Message, ModelCard
from report import Row, at_least, at_most, percentile, plain, publish

PROMPTS = Path(__file__).parent.parent / "packages/exo/tests/routing/prompts/test.jsonl"
ACCURACY = 0.92
FALSE_REASONING = 0.05
_LONG = 100_000
_SITUATION = Situation(
    candidates=(
        Candidate(card=ModelCard(id="quick", role="quick"), loaded=True),
        Candidate(card=ModelCard(id="thinking", role="reasoning"), loaded=True),
    )
)


@dataclass(frozen=True)
class Decided:
    """One labelled prompt, what was decided, and how many seconds that took."""

    kind: str
    role: str
    language: str
    found_kind: str
    found_role: str
    seconds: float

    @property
    def right(self) -> bool:
        return self.role == self.found_role


def main() -> None:
    options = _options()
    router = Router(read_rules(options.rules))
    lines = [json.loads(line) for line in options.file.read_text(encoding="utf-8").splitlines() if line.strip()]
    for line in lines[:20]:  # the first decisions are slower
        _decided(router, line)
    rounds = [[_decided(router, line) for line in lines] for _ in range(options.runs)]
    first = rounds[0]
    _print_by("kind", first, lambda each: each.kind)
    _print_by("language", first, lambda each: each.language)
    _print_confusion(first)
    publish(
        f"routing-{options.file.stem}", {"file": options.file.name, "runs": options.runs}, _rows(router, lines, rounds)
    )


def _rows(router: Router, lines: Sequence[dict[str, str]], rounds: Sequence[Sequence[Decided]]) -> list[Row]:
    first = rounds[0]
    quick = [each for each in first if each.role == "quick"]
    times = [[each.seconds * 1000 for each in decided] for decided in rounds]
    long = [_long_prompt(line["prompt"]) for line in lines]
    long_times = [_decided(router, {**line, "prompt": text}).seconds * 1000 for line, text in zip(lines, long)]
    return [
        at_least("right role, % of the prompts", [_share(first)], "%", ACCURACY * 100),
        plain("baseline: always quick", [100 * len(quick) / len(first)], "%"),
        plain("baseline: always reasoning", [100 - 100 * len(quick) / len(first)], "%"),
        at_most("quick prompts taken for reasoning", [100 - _share(quick)], "%", FALSE_REASONING * 100),
        plain("right kind, % of the prompts", [100 * sum(e.kind == e.found_kind for e in first) / len(first)], "%"),
        plain("decision, p50", [percentile(run, 0.5) for run in times], "ms"),
        at_most("decision, p99", [percentile(run, 0.99) for run in times], "ms", 1),
        plain("decision on 100 kB, p50", [percentile(long_times, 0.5)], "ms"),
        at_most("decision on 100 kB, p99", [percentile(long_times, 0.99)], "ms", 1),
    ]


def _decided(router: Router, line: dict[str, str]) -> Decided:
    request = ChatRequest(model="auto", messages=(Message(role="user", content=line["prompt"]),))
    began = time.perf_counter()
    explanation = router.explain(request, _SITUATION)
    seconds = time.perf_counter() - began
    found = explanation.judgement.kind if explanation.judgement else ""
    return Decided(line["kind"], line["role"], line["language"], found, explanation.choice.role, seconds)


def _long_prompt(text: str) -> str:
    return (f"{text}\n\n" * (_LONG // (len(text) + 2) + 1))[:_LONG]


def _share(decided: Sequence[Decided]) -> float:
    """Percent with the right role."""
    return 100 * sum(each.right for each in decided) / max(1, len(decided))


def _print_by(title: str, decided: Sequence[Decided], key: Callable[[Decided], str]) -> None:
    """As Markdown, for docs/ROUTING.md."""
    print(f"\n| {title} | prompts | right role | right kind |\n|---|---|---|---|")
    for name in dict.fromkeys(map(key, decided)):
        own = [each for each in decided if key(each) == name]
        kinds = 100 * sum(each.kind == each.found_kind for each in own) / len(own)
        print(f"| {name} | {len(own)} | {_share(own):.1f} % | {kinds:.1f} % |")


def _print_confusion(decided: Sequence[Decided]) -> None:
    print("\n| prompts | taken for quick | taken for reasoning |\n|---|---|---|")
    counts = Counter((each.role, each.found_role) for each in decided)
    for role in ("quick", "reasoning"):
        print(f"| {role} | {counts[role, 'quick']} | {counts[role, 'reasoning']} |")
    print("\nwrong kinds, most frequent first:")
    wrong = Counter((each.kind, each.found_kind) for each in decided if each.kind != each.found_kind)
    for (kind, found), count in wrong.most_common(8):
        print(f"  {count:3} {kind} taken for {found}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, default=PROMPTS, help="labelled prompts, JSON Lines")
    parser.add_argument("--rules", type=Path, help="rules laid over the packaged ones")
    parser.add_argument("--runs", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    main()
