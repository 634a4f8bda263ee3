"""Where the tokenizer files of a model come from."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from exo.models.folder import TOKENIZER, TOKENIZER_BESIDE, TOKENIZER_INSTEAD
from exo.models.hub_client import HubClient, Repository
from exo.models.hub_files import Wanted
from exo.models.hub_reference import DEFAULT_REVISION
from exo.types import PullError


def files_of(repository: Repository, folder: str = "") -> list[Wanted]:
    """The tokenizer's files, from `folder` first and then from the root; empty if there is no tokenizer."""
    main = _first(repository, folder, [TOKENIZER]) or _first(repository, folder, TOKENIZER_INSTEAD)
    return [*main, *_first(repository, folder, TOKENIZER_BESIDE)] if main else []


def find(client: HubClient, model: Wanted, original: str) -> tuple[list[Wanted], list[str]]:
    """The tokenizer of a model: from its own repository, else from the original, else from the card's base model.

    The second list says what went wrong on the way, and what to do if there is no tokenizer in the end.
    """
    repository = model.repository
    own = files_of(repository, str(PurePosixPath(model.file.path).parent).removeprefix("."))
    if own and own[0].name == TOKENIZER:
        return own, []
    problems: list[str] = []
    for repo_id in dict.fromkeys((original, repository.base_model)):
        if repo_id in {"", repository.id}:
            continue
        try:
            if found := files_of(client.repository(repo_id, DEFAULT_REVISION)):
                return found, problems
            problems.append(f"{repo_id} holds no tokenizer.")
        except PullError as error:
            client.raise_if_cancelled(repository.id)
            problems.append(f"No tokenizer files from {repo_id}: {error.message}")
    if not own:
        problems.append(
            f"{repository.id} brings no tokenizer files. Put those of the original model, at least {TOKENIZER}, "
            "into the model's folder."
        )
    return own, problems


def not_in(folder: Path, wanted: Iterable[Wanted]) -> list[Wanted]:
    """The files that a model's folder still needs: where there is a tokenizer.json, nothing that stands in for it."""
    unneeded = set(TOKENIZER_INSTEAD) if (folder / TOKENIZER).exists() else set()
    return [one for one in wanted if one.name not in unneeded and not (folder / one.name).exists()]


def _first(repository: Repository, folder: str, names: Iterable[str]) -> list[Wanted]:
    places = [f"{folder}/", ""] if folder else [""]
    found = []
    for name in names:
        path = next((place + name for place in places if place + name in repository.files), None)
        found += [Wanted(repository, repository.files[path])] if path else []
    return found
