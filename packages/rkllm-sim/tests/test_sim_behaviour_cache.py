"""The key-value cache of the simulated library: re-use, history, clearing, the window, pauses, prompt cache files."""

from __future__ import annotations

from pathlib import Path

import pytest
import sim_ctypes
from sim_ctypes import Bench, Call, Model, every_release, releases
from sim_models import SPECIAL, hash_answer, hash_model, script_model

from rkllm_facts.abi import SUPPORTED

libraries, bench = sim_ctypes.libraries, sim_ctypes.bench

with_history = releases(*SUPPORTED[1:])
with_size = releases("1.2.3", "1.3.0")


def work(bench: Bench) -> tuple[int, int]:
    """Positions that the last run took from the cache, and those that it had to evaluate."""
    line = bench.last_run()
    return line["reused"], line["prefilled"]


# --- re-use of a common beginning ---


@every_release
def test_the_next_turn_evaluates_only_what_is_new(abi: str, bench: Bench) -> None:
    model = bench.load(abi, hash_model(bench.folder))
    first = [1, 2, 3, 4]
    answer = model.run(first).ids
    assert work(bench) == (0, 4)
    second = [*first, *answer, 7, 8]
    assert model.run(second).ids == hash_answer(second)
    assert work(bench) == ((0, len(second)) if abi == "1.1.4" else (len(second) - 2, 2))


@with_history
def test_the_last_position_is_always_evaluated(abi: str, bench: Bench) -> None:
    model = bench.load(abi, hash_model(bench.folder))
    expected = model.run([1, 2, 3]).ids
    assert model.run([1, 2, 3]).ids == expected
    assert work(bench) == (2, 1)
    assert model.run([1]).ids == hash_answer([1])
    assert work(bench) == (0, 1)


@with_history
def test_a_difference_ends_the_re_use(abi: str, bench: Bench) -> None:
    model = bench.load(abi, hash_model(bench.folder))
    model.run([1, 2, 3, 4, 5])
    assert model.run([1, 2, 9, 4, 5]).ids == hash_answer([1, 2, 9, 4, 5])
    assert work(bench) == (2, 3)
    model.run([1, 2, 3, 4, 5])
    assert work(bench) == (2, 3)


@with_size
def test_the_last_token_of_a_capped_answer_is_not_in_the_cache(abi: str, bench: Bench) -> None:
    model = bench.load(abi, hash_model(bench.folder), max_new_tokens=5)
    answer = model.run([1, 2, 3]).ids
    assert model.cache_size() == 3 + 5 - 1
    prompt = [1, 2, 3, *answer, 9]
    assert model.run(prompt).ids == hash_answer(prompt)[:5]
    assert work(bench) == (7, 2)


@with_size
def test_an_answer_that_ends_by_itself_is_in_the_cache(abi: str, bench: Bench) -> None:
    """The token after its last one, EOS, had to be computed from all of them."""
    model = bench.load(abi, hash_model(bench.folder))
    answer = model.run([1, 2, 3]).ids
    assert model.cache_size() == 3 + len(answer)


@releases("1.1.4", "1.2.1b1", "1.2.2", "1.2.3", "1.3.0")
def test_embeddings_are_re_used_from_1_2_3_on(abi: str, bench: Bench) -> None:
    model = bench.load(abi, hash_model(bench.folder, "embd 4"))
    rows = [[float(row), 0.5, 0.25, -1.0] for row in range(6)]
    first = model.run(rows).ids
    assert bench.calls("rkllm_run", "enter")[0]["tokens"] == [None] * 6
    assert model.run(rows).ids == first
    assert work(bench) == ((5, 1) if abi in {"1.2.3", "1.3.0"} else (0, 6))
    assert model.run([*rows[:-1], [9.0, 0.5, 0.25, -1.0]]).ids != first


# --- keep_history ---


@with_history
def test_history_is_kept_and_the_prompt_appended(abi: str, bench: Bench) -> None:
    model = bench.load(abi, hash_model(bench.folder))
    first = model.run([1, 2, 3], keep_history=1).ids
    second = model.run([7, 8], keep_history=1).ids
    assert work(bench) == (3 + len(first), 2)
    assert second == hash_answer([1, 2, 3, *first, 7, 8])
    assert model.run([7, 8]).ids == hash_answer([7, 8])


@with_history
def test_the_system_prompt_stands_before_the_first_turn_only(abi: str, bench: Bench) -> None:
    model = bench.load(abi, hash_model(bench.folder, 'system "S"', 'prefix "<"', 'postfix ">"'))
    for _ in range(2):
        model.run("a", keep_history=1)
    first, second = (bytes(line["tokens"]) for line in bench.calls("rkllm_run", "enter"))
    assert (first, second) == (b"S<a>", b"<a>")


# --- clearing ---


@with_history
def test_a_full_clear_forgets_everything(abi: str, bench: Bench) -> None:
    model = bench.load(abi, hash_model(bench.folder))
    model.run([1, 2, 3])
    assert model.clear() == 0
    assert model.run([1, 2, 3]).ids == hash_answer([1, 2, 3])
    assert work(bench) == (0, 3)


@with_history
def test_the_system_prompt_can_survive_a_clear(abi: str, bench: Bench) -> None:
    model = bench.load(abi, hash_model(bench.folder, 'system "System"'))
    model.run("abc")
    assert model.clear(keep_system=1) == 0
    model.run("abc")
    assert work(bench) == (6, 3)
    model.clear(keep_system=0)
    model.run("abc")
    assert work(bench) == (0, 9)


def paused_after(model: Model, prompt: list[int], tokens: int) -> list[int]:
    outcome = model.run(prompt, answer=lambda call: int(len(model.calls) == tokens))
    assert (outcome.ret, outcome.states) == (0, ["normal"] * tokens)
    return outcome.ids


@with_size
def test_a_callback_can_pause_the_run(abi: str, bench: Bench) -> None:
    model = bench.load(abi, hash_model(bench.folder))
    ids = paused_after(model, [1, 2, 3], 4)
    assert bench.last_run()["end"] == "paused"
    assert ids == hash_answer([1, 2, 3])[:4]
    assert model.cache_size() == 3 + 3
    prompt = [1, 2, 3, *ids, 50]
    assert model.run(prompt).ids == hash_answer(prompt)
    assert work(bench) == (6, 2)


@with_size
def test_a_pause_has_no_effect_with_history(abi: str, bench: Bench) -> None:
    model = bench.load(abi, hash_model(bench.folder))
    outcome = model.run([1, 2, 3], keep_history=1, answer=lambda call: 1)
    assert outcome.ids == hash_answer([1, 2, 3])
    assert outcome.states[-1] == "finish"


@releases("1.1.4", "1.2.0", "1.2.1b1")
def test_old_callbacks_return_nothing(abi: str, bench: Bench) -> None:
    model = bench.load(abi, hash_model(bench.folder))
    assert model.run([1, 2, 3], answer=lambda call: 1).ids == hash_answer([1, 2, 3])


@with_size
def test_a_range_can_be_cleared_after_a_pause_only(abi: str, bench: Bench) -> None:
    model = bench.load(abi, hash_model(bench.folder))
    prompt = [1, 2, 3, 4, 5, 6]
    model.run(prompt)
    assert model.clear(start=2, end=4) == -1
    paused_after(model, prompt, 1)
    assert model.cache_size() == 6
    assert model.clear(start=4, end=9) == -1
    assert model.clear(start=-1, end=2) == -1
    assert model.clear(start=2) == -1
    assert model.clear(start=4, end=4) == 0
    assert model.cache_size() == 6
    assert model.clear(start=2, end=4) == 0
    assert model.cache_size() == 4
    assert model.run([1, 2, 5, 6, 7]).ids == hash_answer([1, 2, 5, 6, 7])
    assert work(bench) == (4, 1)
    assert model.clear(start=0, end=1) == -1


@with_size
def test_the_size_counts_while_a_run_is_under_way(abi: str, bench: Bench) -> None:
    model = bench.load(abi, hash_model(bench.folder, "answer 5 5"))
    sizes: list[int] = []

    def called(call: Call) -> int:
        sizes.append(model.cache_size())
        return 0

    model.run([1, 2, 3], answer=called)
    assert sizes == [3, 4, 5, 6, 7, 8]
    assert model.call("get_kv_cache_size", None) == -1


# --- the window ---


def windowed(prompt: list[int], n: int, context: int, keep: int) -> list[int]:
    """The hash language's answer of n tokens in a window that shifts."""
    cache, out = list(prompt), [hash_answer(prompt, shortest=1, longest=1)[0]]
    while len(out) < n:
        if len(cache) == context:
            del cache[keep : keep + (context - keep + 1) // 2]
        cache.append(out[-1])
        out.append(hash_answer(cache, shortest=1, longest=1)[0])
    return out


@every_release
def test_the_window_shifts_when_the_context_is_full(abi: str, bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    path = hash_model(bench.folder, "answer 100 100")
    plain = bench.load(abi, path, max_context_len=32)
    assert plain.run([1, 2, 3]).ids == windowed([1, 2, 3], 100, 32, 0)
    assert capfd.readouterr().out.count("context is full") == 1
    if abi != "1.1.4":
        kept = bench.load(abi, path, max_context_len=32, n_keep=9)
        assert kept.run([1, 2, 3]).ids == windowed([1, 2, 3], 100, 32, 9)


@with_history
def test_history_that_does_not_fit_is_shifted_or_refused(abi: str, bench: Bench) -> None:
    path = hash_model(bench.folder, "answer 4 4")
    model = bench.load(abi, path, max_context_len=32, n_keep=3)
    cache = list(range(20))
    cache += model.run(cache, keep_history=1).ids
    answer = model.run([7] * 10, keep_history=1).ids
    del cache[3 : 3 + 11]
    assert answer == hash_answer([*cache, *[7] * 10], shortest=4, longest=4)
    assert work(bench) == (13, 10)
    outcome = model.run([7] * 29, keep_history=1)
    assert (outcome.ret, outcome.states) == (-1, ["error"])


# --- prompt cache files ---


def cache_param(model: Model, path: Path | None) -> object:
    return model.types.PromptCacheParam(1, str(path).encode() if path else None)


@every_release
def test_a_saved_prompt_is_re_used_by_another_load(abi: str, bench: Bench) -> None:
    path, saved = hash_model(bench.folder), bench.folder / "fixed.bin"
    fixed = [1, 2, 3, 4, 5]
    first = bench.load(abi, path)
    first.run(fixed, prompt_cache_params=cache_param(first, saved))
    second = bench.load(abi, path)
    assert second.call("load_prompt_cache", str(saved).encode()) == 0
    prompt = [*fixed, 8, 9]
    assert second.run(prompt).ids == hash_answer(prompt)
    assert work(bench) == (5, 2)
    assert second.run([1, 2, 9, 9]).ids == hash_answer([1, 2, 9, 9])
    assert work(bench)[0] == 2
    assert second.call("release_prompt_cache") == 0
    second.run([3, 3])
    second.run(prompt)
    assert work(bench) == (0, 7)


@every_release
def test_a_prompt_that_does_not_match_the_file_is_evaluated(
    abi: str, bench: Bench, capfd: pytest.CaptureFixture[str]
) -> None:
    model = bench.load(abi, hash_model(bench.folder))
    model.run([1, 2], prompt_cache_params=cache_param(model, bench.folder / "c"))
    model.call("load_prompt_cache", str(bench.folder / "c").encode())
    assert model.run([5, 6, 7]).ids == hash_answer([5, 6, 7])
    assert "does not match the loaded prompt cache" in capfd.readouterr().out


def test_without_a_path_the_file_lies_in_the_working_directory(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(bench.folder)
    model = bench.load("1.3.0", hash_model(bench.folder))
    model.run([1, 2], prompt_cache_params=cache_param(model, None))
    assert Path("prompt_cache.bin").exists()
    assert model.call("load_prompt_cache", b"prompt_cache.bin") == 0
    assert model.call("load_prompt_cache", b"prompt_cache.bin") == -1
    assert model.call("release_prompt_cache") == 0
    assert model.call("load_prompt_cache", b"prompt_cache.bin") == 0


def test_bad_prompt_cache_files_are_refused(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    model = bench.load("1.3.0", hash_model(bench.folder))
    other = bench.load("1.3.0", hash_model(bench.folder, "seed 5", name="other.rkllm"))
    saved = bench.folder / "saved"
    model.run([1, 2, 3], prompt_cache_params=cache_param(model, saved))
    good = saved.read_text(encoding="utf-8")
    files = {"missing": None, "empty": "", "not a prompt cache": "x" * 99, "ends too early": good[:-3]}
    for reason, content in files.items():
        path = bench.folder / "bad"
        if content is not None:
            path.write_text(content, encoding="utf-8")
        assert model.call("load_prompt_cache", str(path).encode()) == -1
        assert reason in capfd.readouterr().out
    assert other.call("load_prompt_cache", str(saved).encode()) == -1
    assert "another model" in capfd.readouterr().out
    assert model.call("load_prompt_cache", None) == -1
    assert model.run([1], prompt_cache_params=cache_param(model, bench.folder / "no" / "file")).ret == 0


# --- pictures ---


def picture(model: Model, prompt: str, tokens: int, count: int = 1, value: float = 0.5) -> object:
    made = model.types.MultiModal(prompt=prompt.encode())
    rows = [[value + row, 1.0] for row in range(tokens * count)]
    place = made.image if hasattr(made, "image") else made
    place.image_embed = model.floats(rows)
    place.n_image_tokens = tokens
    if hasattr(place, "n_image"):
        place.n_image = count
    if hasattr(place, "image_start"):
        place.image_start, place.image_end = b"<|user|>", b"<|end|>"
    return made


@every_release
def test_a_picture_takes_the_place_of_its_tag(abi: str, bench: Bench) -> None:
    tags = {} if abi == "1.3.0" else {"img_start": "<|user|>", "img_end": "<|end|>"}
    model = bench.load(abi, hash_model(bench.folder, "embd 2", 'prefix "<"'), **tags)
    first = model.run(picture(model, "a<image>b", 3)).ids
    tokens = bench.calls("rkllm_run", "enter")[-1]["tokens"]
    assert tokens == [*b"<a", SPECIAL, None, None, None, 320, *b"b"]
    assert model.run(picture(model, "a<image>b", 3, value=0.75)).ids != first
    assert model.run(picture(model, "a<image>b", 3)).ids == first


@releases(*SUPPORTED[2:])
def test_the_last_tag_takes_all_pictures_that_are_left(abi: str, bench: Bench) -> None:
    model = bench.load(abi, hash_model(bench.folder, "embd 2"))
    model.run(picture(model, "<image>-<image>", 1, count=3))
    tokens = [one for one in bench.calls("rkllm_run", "enter")[-1]["tokens"] if one is None or one < 256]
    assert tokens == [None, 45, None, None]


@every_release
def test_a_picture_without_tag_and_a_tag_without_picture_are_refused(abi: str, bench: Bench) -> None:
    model = bench.load(abi, hash_model(bench.folder, "embd 2"))
    assert model.run(picture(model, "no tag", 3)).ret == -1
    assert model.run(picture(model, "<image><image>", 3)).ret == -1
    assert model.run(picture(model, "<image>", 0)).ret == -1
    assert model.run(model.types.MultiModal(prompt=b"<image>")).ret == -1
    assert model.calls == []


def test_a_video_takes_the_place_of_its_tag(bench: Bench) -> None:
    model = bench.load("1.3.0", hash_model(bench.folder, "embd 2"))
    made = model.types.MultiModal(prompt=b"<video>x")
    made.video.video_embed = model.floats([[1.0, 2.0]] * 6)
    made.video.n_frame_tokens, made.video.n_frame_per_video, made.video.n_video = 2, 3, 1
    assert model.run(made).ret == 0
    assert bench.calls("rkllm_run", "enter")[-1]["tokens"] == [*[None] * 6, ord("x")]


def test_a_script_hears_the_prompt_of_a_picture(bench: Bench) -> None:
    path = script_model(bench.folder, 'when "cat"', 'text "meow"', settings=["embd 2"])
    model = bench.load("1.3.0", path)
    assert model.run(picture(model, "a cat: <image>", 1)).text == "meow"
