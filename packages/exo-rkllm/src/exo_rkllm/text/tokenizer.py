"""The tokenizer files of a model folder: text to ids and back, special ids, and the chat template."""

from __future__ import annotations

import collections
import ctypes
import json
import threading
from array import array
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from exo.chat import ChatTemplate
from exo.types import ModelLoadError
from exo_rkllm.text.added_tokens import AddedToken, AddedTokens, Piece

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["After", "ModelTokenizer"]

After = Literal["nothing", "token", "text"]
"""What a text follows: nothing, an added token, or plain text that it continues."""

_SPECIAL_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_SHORT = 1024
_REMEMBERED_FROM = 256
_REMEMBERED = 2**20
_LARGEST_ID = 2**31


class _Model(msgspec.Struct):
    """The part of tokenizer.json's `model` that is of use here; the vocabulary itself goes to the library unread."""

    unk_token: str | None = None
    unk_id: int | None = None


class _Definition(msgspec.Struct):
    model: msgspec.Raw
    added_tokens: list[AddedToken] = []
    version: str | None = "1.0"
    normalizer: dict[str, Any] | None = None
    pre_tokenizer: dict[str, Any] | None = None
    decoder: dict[str, Any] | None = None


class ModelTokenizer:
    """One model's tokenizer. Plain text never becomes a special token; only `encode_rendered` makes them.

    The tokenizers library gets the definition without added tokens and post-processing; the added tokens are looked
    for here. Both together give the ids that the library gives for the untouched file without `add_special_tokens`,
    but for definitions whose normaliser changes the text of tokens marked `normalized`.

    - `vocabulary_size`: highest id + 1, added tokens included
    - `special_ids`: ids of tokens marked special; `eos_ids`: those that end an answer, from all configuration files
    - `special_texts`: `bos_token` and the like, where the files name them; `add_bos`: raw prompts begin with it
    - `template`: the model's chat template, if the files bring one

    The methods may be called from several threads at once. Loading Qwen3's files takes 0.4 s and 50 MB.
    """

    def __init__(
        self, definition: bytes, config: Mapping[str, Any], eos: Iterable[object], template: ChatTemplate | None
    ) -> None:
        """Raises msgspec.MsgspecError, ValueError or the library's bare Exception if the definition is damaged."""
        parsed = msgspec.json.decode(definition, type=_Definition)
        del definition
        if any(not 0 <= token.id < _LARGEST_ID for token in parsed.added_tokens):
            raise ValueError(f"an added token has an id that is not from 0 to {_LARGEST_ID - 1}")
        self.added = AddedTokens(parsed.added_tokens)
        self.template = template
        self.special_texts: Mapping[str, str] = _special_texts(config)
        self.add_bos = config.get("add_bos_token") is True
        self._whole = _build(parsed)
        self._continuing = _without_prefix(self._whole, parsed)
        self._prefix_once = _has_prefix_once(parsed.pre_tokenizer)
        """Whether only the very beginning of a text gets the blank that some tokenizers put before each piece."""
        self._decoder = self._whole.decoder
        self.vocabulary_size = max([_vocabulary_size(self._whole), *(token.id + 1 for token in parsed.added_tokens)])
        self.special_ids = self.added.special_ids
        self.eos_ids = self._eos_ids(eos)
        self._never = self.added.guarded_ids - self._unknown_ids(msgspec.json.decode(parsed.model, type=_Model))
        self._remembered = _LongPieces()
        _give_memory_back()

    @classmethod
    def load(cls, folder: Path) -> ModelTokenizer | None:
        """Read a model folder; None if it has no tokenizer.json. Raises ModelLoadError if a file in it is damaged."""
        path = folder / "tokenizer.json"
        if not path.is_file():
            return None
        config = _read_config(folder / "tokenizer_config.json")
        others = [_read_config(folder / name) for name in ("generation_config.json", "config.json")]
        template = _template(folder, config)
        try:
            return cls(path.read_bytes(), config, [other.get("eos_token_id") for other in others], template)
        except Exception as error:  # the library raises Exception itself, whatever is wrong
            raise _damaged(path, error) from error

    def encode_plain(self, text: str) -> list[int]:
        """Ids of a text in which nothing is special: `<|im_end|>` in it is ten characters."""
        return self._encode_plain(text, self._whole)

    def encode_rendered(self, text: str) -> list[int]:
        """Ids of a rendered prompt: texts of added tokens in it are these tokens."""
        return self.encode_pieces(self.added.split(text))

    def encode_pieces(self, pieces: Sequence[Piece], *, sentinel: str = "", after: After = "nothing") -> list[int]:
        """Ids of pieces from `added.split`. `sentinel` is taken out of plain pieces; `after` says what they follow."""
        ids: list[int] = []
        for piece, token_id in pieces:
            if token_id is not None:
                ids.append(token_id)
                after = "token"
                continue
            text = piece.replace(sentinel, "") if sentinel else piece
            prefixed = after == "nothing" or (after == "token" and not self._prefix_once)
            ids += self._encode_remembered(text, prefixed=prefixed)
            after = "text"
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`, special tokens included; an id without a token has none."""
        size = self.vocabulary_size
        known = (
            self.added.texts.get(number) or self._whole.id_to_token(number) for number in ids if 0 <= number < size
        )
        tokens = [token for token in known if token is not None]
        return self._decoder.decode(tokens) if self._decoder is not None else " ".join(tokens)

    def _encode_remembered(self, text: str, *, prefixed: bool) -> list[int]:
        found = self._remembered.get(text, prefixed=prefixed)
        if found is None:
            found = self._encode_plain(text, self._whole if prefixed else self._continuing)
            self._remembered.keep(text, found, prefixed=prefixed)
        return found

    def _encode_plain(self, text: str, tokenizer: Tokenizer) -> list[int]:
        ids: list[int] = []
        for piece, token_id in self.added.split_text(text):
            if token_id is not None:
                ids.append(token_id)
                tokenizer = self._continuing if self._prefix_once else tokenizer
                continue
            found = _encode(tokenizer, piece)
            if not self._never.isdisjoint(found):  # a model whose own vocabulary holds special texts, and finds them
                first, *rest = self.added.break_up(piece)
                found = _encode(tokenizer, first)
                for part in rest:
                    found += _encode(self._continuing, part)
            ids += found
        return ids

    def _eos_ids(self, configured: Iterable[object]) -> frozenset[int]:
        found: set[int] = set()
        for value in configured:
            found.update(number for number in (value if isinstance(value, list) else [value]) if type(number) is int)
        text = self.special_texts.get("eos_token", "")
        named = self.added.ids.get(text, self._whole.token_to_id(text) if text else None)
        return frozenset(found if named is None else {*found, named})

    def _unknown_ids(self, model: _Model) -> set[int]:
        named = model.unk_token and self._whole.token_to_id(model.unk_token)
        return {number for number in (named, model.unk_id) if isinstance(number, int)}


class _LongPieces:
    """Ids of long plain pieces, the system text of every prompt for one: at most _REMEMBERED characters of them."""

    def __init__(self) -> None:
        self._known: collections.OrderedDict[tuple[str, bool], array[int]] = collections.OrderedDict()
        self._characters = 0
        self._lock = threading.Lock()

    def get(self, text: str, *, prefixed: bool) -> list[int] | None:
        with self._lock:
            found = self._known.get((text, prefixed))
            if found is None:
                return None
            self._known.move_to_end((text, prefixed))
            return found.tolist()

    def keep(self, text: str, ids: Sequence[int], *, prefixed: bool) -> None:
        if not _REMEMBERED_FROM <= len(text) <= _REMEMBERED:
            return
        with self._lock:
            if (text, prefixed) not in self._known:
                self._characters += len(text)
            self._known[text, prefixed] = array("i", ids)
            while self._characters > _REMEMBERED:
                (old, _), _ = self._known.popitem(last=False)
                self._characters -= len(old)


def _build(definition: _Definition) -> Tokenizer:
    from tokenizers import Tokenizer  # noqa: PLC0415 - a node that has loaded no model does without its 5 MB

    parts: dict[str, Any] = msgspec.structs.asdict(definition)
    parts |= {"added_tokens": [], "post_processor": None, "truncation": None, "padding": None}
    return Tokenizer.from_buffer(msgspec.json.encode(parts))


def _without_prefix(whole: Tokenizer, definition: _Definition) -> Tokenizer:
    """The same tokenizer for text that continues other text: without the blank that is put before it."""
    from tokenizers import Tokenizer  # noqa: PLC0415 - as in _build

    normalizer, pre_tokenizer = map(_prefixless, (definition.normalizer, definition.pre_tokenizer))
    if (normalizer, pre_tokenizer) == (definition.normalizer, definition.pre_tokenizer):
        return whole
    empty = msgspec.Raw(b'{"type": "BPE", "vocab": {}, "merges": []}')
    parts = _build(_Definition(empty, normalizer=normalizer, pre_tokenizer=pre_tokenizer))
    made = Tokenizer(whole.model)  # both share the vocabulary
    if parts.normalizer is not None:
        made.normalizer = parts.normalizer
    if parts.pre_tokenizer is not None:
        made.pre_tokenizer = parts.pre_tokenizer
    return made


def _prefixless(component: dict[str, Any] | None) -> dict[str, Any] | None:
    if component is None or component.get("type") == "Prepend":
        return None
    changed = dict(component)
    for key in ("normalizers", "pretokenizers"):
        if key in changed:
            changed[key] = [part for part in map(_prefixless, changed[key]) if part is not None]
    if changed.get("type") == "Metaspace":
        changed |= {"prepend_scheme": "never", "add_prefix_space": False}
    elif changed.get("add_prefix_space"):
        changed["add_prefix_space"] = False
    return changed


def _has_prefix_once(component: dict[str, Any] | None) -> bool:
    if component is None:
        return False
    return component.get("prepend_scheme") == "first" or any(map(_has_prefix_once, component.get("pretokenizers", ())))


def _encode(tokenizer: Tokenizer, text: str) -> list[int]:
    try:
        return _ids(tokenizer, text)
    except TypeError:  # half of a surrogate pair, which is no text
        clean = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        return _ids(tokenizer, clean)


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """A batch, though of one text: unlike `encode` it lets other threads run meanwhile."""
    if len(text) < _SHORT:
        return tokenizer.encode(text, add_special_tokens=False).ids
    return tokenizer.encode_batch([text], add_special_tokens=False)[0].ids


def _vocabulary_size(tokenizer: Tokenizer) -> int:
    count = tokenizer.get_vocab_size(with_added_tokens=False)
    if None not in map(tokenizer.id_to_token, range(count)):
        return count
    return max(tokenizer.get_vocab(with_added_tokens=False).values(), default=-1) + 1  # there are holes


def _give_memory_back() -> None:
    """Reading a definition leaves 60 MB of freed memory in the heap; glibc returns it only if it is told to."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _template(folder: Path, config: Mapping[str, Any]) -> ChatTemplate | None:
    """chat_template.jinja, else the (default) template of tokenizer_config.json."""
    path = folder / "chat_template.jinja"
    source: object
    if path.is_file():
        try:
            source = path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise _damaged(path, error) from error
    else:
        path, source = folder / "tokenizer_config.json", config.get("chat_template")
        if isinstance(source, list):
            named = {entry.get("name"): entry.get("template") for entry in source if isinstance(entry, dict)}
            source = named.get("default", next(iter(named.values()), None))
    if not isinstance(source, str):
        return None
    return ChatTemplate(source, special=_special_texts(config), name=f"The chat template in {path}")


def _special_texts(config: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    for name in _SPECIAL_NAMES:
        value = config.get(name)
        text = value.get("content") if isinstance(value, dict) else value
        if isinstance(text, str):
            found[name] = text
    return found


def _read_config(path: Path) -> Mapping[str, Any]:
    """A JSON object; empty if there is no such file."""
    try:
        config = json.loads(path.read_bytes())  # not msgspec: some files say Infinity
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(path, error) from error
    if not isinstance(config, dict):
        raise _damaged(path, ValueError("it is no JSON object"))
    return config


def _damaged(path: Path, error: Exception) -> ModelLoadError:
    return ModelLoadError(f"{path} cannot be used: {error}. Fetch the model's files again.")
