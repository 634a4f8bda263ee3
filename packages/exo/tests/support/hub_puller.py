"""Pulls from the fake hub."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fake_hub import FakeHub

from exo.models import ModelStore
from exo.models.hub import HubReference, PulledModel, pull_from_hub
from exo.models.progress import Progress

WEIGHTS = random.Random(1).randbytes(3_000_000)
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()
TOKENIZER = {"tokenizer.json": b'{"version": "1.0"}', "tokenizer_config.json": b"{}", "chat_template.jinja": b"{{ x }}"}
REPO = "owner/repo"
FILE = "sub/model.rkllm"


@dataclass
class Puller:
    """Pulls REPO from the fake hub into a store; `steps` is what was reported."""

    hub: FakeHub
    store: ModelStore
    env: dict[str, str]
    steps: list[Progress] = field(default_factory=list)

    def __call__(self, text: str = f"{REPO}/{FILE}", *, suffix: str = ".rkllm", **options: Any) -> PulledModel:
        report: Callable[[Progress], None] = self.steps.append
        options = {"report": report, **options}
        return pull_from_hub(HubReference.parse(text), self.store.root, suffix=suffix, env=self.env, **options)

    def listed(self) -> list[str]:
        return [model.id for model in self.store.scan(".rkllm")]

    def entries(self) -> list[str]:
        """Everything in the store, hidden or not."""
        return sorted(str(path.relative_to(self.store.root)) for path in self.store.root.rglob("*") if path.is_file())
