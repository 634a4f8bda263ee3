from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from exo.models import Modelfile, ModelParameters, parse_modelfile, read_modelfile, write_modelfile
from exo.models.modelfile import read_from, with_from
from exo.types import BadModelfile, Message, Sampling, StoreError

OLDER_SERVER = """\
FROM="Qwen2.5-1.5B-Instruct-w8a8.rkllm"

HUGGINGFACE_PATH="Qwen/Qwen2.5-1.5B-Instruct"

SYSTEM="You are a helpful assistant."

TEMPERATURE=0.8
NUM_CTX=8192
MAX_NEW_TOKENS=1024
TOP_K=7
TOP_P=0.5
REPEAT_PENALTY=1.1
FREQUENCY_PENALTY=0.0
PRESENCE_PENALTY=-0.5
MIROSTAT=0
MIROSTAT_TAU=3
MIROSTAT_ETA=0.1
ENABLE_THINKING=False
TOKENIZER="Qwen/Qwen2.5-1.5B-Instruct"
"""

OLLAMA = '''\
# a comment
FROM ./model.gguf
PARAMETER temperature 0.7
PARAMETER num_ctx 4096
PARAMETER num_predict -1
PARAMETER stop <|im_end|>
PARAMETER stop "User: "
  parameter	top_k   40
PARAMETER stop ""
TEMPLATE """{{ if .System }}<|im_start|>system
{{ .System }}<|im_end|>
{{ end }}# no comment"""
SYSTEM """
You are a pirate.
NUM_CTX=1
"""
MESSAGE user "Who are you?"
MESSAGE assistant A pirate.
ADAPTER ./lora.gguf
LICENSE """
Apache-2.0
"""
'''


def test_the_way_of_older_servers() -> None:
    assert parse_modelfile(OLDER_SERVER) == Modelfile(
        from_="Qwen2.5-1.5B-Instruct-w8a8.rkllm",
        system="You are a helpful assistant.",
        huggingface_path="Qwen/Qwen2.5-1.5B-Instruct",
        tokenizer="Qwen/Qwen2.5-1.5B-Instruct",
        enable_thinking=False,
        parameters=ModelParameters(
            num_ctx=8192,
            num_predict=1024,
            temperature=0.8,
            top_k=7,
            top_p=0.5,
            repeat_penalty=1.1,
            frequency_penalty=0,
            presence_penalty=-0.5,
            mirostat=0,
            mirostat_tau=3,
            mirostat_eta=0.1,
        ),
    )


def test_the_way_of_ollama() -> None:
    assert parse_modelfile(OLLAMA) == Modelfile(
        from_="./model.gguf",
        system="\nYou are a pirate.\nNUM_CTX=1\n",
        template="{{ if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n{{ end }}# no comment",
        adapter="./lora.gguf",
        licence="\nApache-2.0\n",
        parameters=ModelParameters(
            num_ctx=4096, num_predict=-1, temperature=0.7, top_k=40, stop=("<|im_end|>", "User: ")
        ),
        messages=(Message(role="user", content="Who are you?"), Message(role="assistant", content="A pirate.")),
    )


def test_line_ends_of_other_systems_change_nothing() -> None:
    for text in (OLDER_SERVER, OLLAMA):
        assert parse_modelfile(text.replace("\n", "\r\n")) == parse_modelfile(text)


def test_both_ways_in_one_file() -> None:
    found = parse_modelfile(
        "FROM model.rkllm\nHUGGINGFACE Qwen/Qwen2.5-1.5B-Instruct\nMAX_NEW_TOKENS 2048\nnum_ctx = 512"
    )
    assert (found.from_, found.huggingface_path) == ("model.rkllm", "Qwen/Qwen2.5-1.5B-Instruct")
    assert (found.parameters.num_predict, found.parameters.num_ctx) == (2048, 512)
    assert found.problems == ()


@pytest.mark.parametrize(
    ("line", "system"),
    [
        ("SYSTEM=bare words # a comment", "bare words"),
        ("SYSTEM=a#b", "a#b"),
        ("SYSTEM= # a comment", ""),
        ("SYSTEM=", ""),
        ('export SYSTEM = "a # b" # a comment', "a # b"),
        (r'SYSTEM="two\nlines, a \"word\" and a back\\slash, \d"', 'two\nlines, a "word" and a back\\slash, \\d'),
        ('SYSTEM="You are "the" bot."', 'You are "the" bot.'),
        ('SYSTEM="two  \nlines"  ', "two  \nlines"),
        ("SYSTEM=   ", ""),
        ("SYSTEM='It is \"so\" \\n'", 'It is "so" \\n'),
        ("SYSTEM='You're a bot'", "You're a bot"),
        ('SYSTEM="""two\nlines"""', "two\nlines"),
        ("SYSTEM bare words # no comment", "bare words # no comment"),
        ('SYSTEM "back\\nslash"', "back\\nslash"),
        ('SYSTEM "two\nlines"', "two\nlines"),
        ("SYSTEM a=b", "a=b"),
        ("system Привет", "Привет"),
        ("SYSTEM", ""),
    ],
)
def test_texts_in_all_kinds_of_quotes(line: str, system: str) -> None:
    found = parse_modelfile(f"{line}\nTOP_K=3\n")
    assert (found.system, found.parameters.top_k, found.problems) == (system, 3, ())


def test_the_later_of_two_counts() -> None:
    found = parse_modelfile("TOP_K=1\nPARAMETER top_k 2\nSYSTEM one\nSYSTEM two\n")
    assert (found.parameters.top_k, found.system) == (2, "two")


def test_what_has_no_value_is_not_set() -> None:
    assert parse_modelfile("NUM_CTX=\nPARAMETER top_k\nENABLE_THINKING=\nTOP_P=\n") == Modelfile(enable_thinking=None)


def test_the_unknown_is_kept_and_reported() -> None:
    found = parse_modelfile(
        "VISION_ENCODER=x.rknn\nPARAMETER num_gpu 99\nFOO bar baz\n??\nMESSAGE robot hi\n", name="M"
    )
    assert found.unknown == (
        ("VISION_ENCODER", "x.rknn"),
        ("PARAMETER num_gpu", "99"),
        ("FOO", "bar baz"),
        ("", "??"),
        ("MESSAGE robot", "hi"),
    )
    assert [problem.split(" ")[0] for problem in found.problems] == ["M:1:", "M:2:", "M:3:", "M:4:", "M:5:"]
    assert found.problems[1] == "M:2: PARAMETER num_gpu is not known and has no effect."


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("NUM_CTX=many", "NUM_CTX"),
        ("NUM_CTX=4096.5", "NUM_CTX"),
        ("NUM_CTX=0", "NUM_CTX"),
        ("NUM_CTX=-1", "NUM_CTX"),
        (f"NUM_CTX={'9' * 5000}", "NUM_CTX"),
        ("PARAMETER num_ctx 4k", "PARAMETER num_ctx"),
        ("TEMPERATURE=nan", "TEMPERATURE"),
        ("TEMPERATURE=warm", "TEMPERATURE"),
        ("TEMPERATURE=-1", "TEMPERATURE"),
        ("TEMPERATURE=1e999", "TEMPERATURE"),
        ("TEMPERATURE=0,8", "TEMPERATURE"),
        ("TOP_P=1.1", "TOP_P"),
        ("MIROSTAT=3", "MIROSTAT"),
        ("FREQUENCY_PENALTY=2.5", "FREQUENCY_PENALTY"),
        ("ENABLE_THINKING=perhaps", "ENABLE_THINKING"),
    ],
)
def test_a_wrong_value_is_refused_with_file_line_and_value(line: str, key: str) -> None:
    with pytest.raises(BadModelfile) as caught:
        parse_modelfile(f'SYSTEM="two\nlines"\n\n{line}\n', name="/models/x/Modelfile")
    assert caught.value.message.startswith(f"/models/x/Modelfile:4: {key} has to be ")
    value = line.replace("=", " ").split(" ")[-1]
    assert repr(value) in caught.value.message or repr(f"{value[:57]}...") in caught.value.message


@pytest.mark.parametrize(
    "line",
    ['SYSTEM="open', "SYSTEM='open", 'SYSTEM "open', 'SYSTEM """open', 'SYSTEM="""open', 'SYSTEM "', 'SYSTEM="open\\"'],
)
def test_quotes_that_are_not_closed_are_named_where_they_begin(line: str) -> None:
    with pytest.raises(BadModelfile, match=r"^Modelfile:2: the quotes that begin here are not closed"):
        parse_modelfile(f"TOP_K=1\n{line}\nTOP_P=1\n")


def test_a_nul_is_refused_where_it_is() -> None:
    with pytest.raises(BadModelfile, match=r"^Modelfile:2: there is a NUL in it"):
        parse_modelfile("TOP_K=1\nFROM x\0y\n")


def test_sampling_has_the_values_of_the_file() -> None:
    text = "TEMPERATURE=0.1\nTOP_P=0.2\nTOP_K=3\nMIN_P=0.4\nREPEAT_PENALTY=1.5\nSEED=6\n"
    found = parse_modelfile(f"{text}FREQUENCY_PENALTY=0.7\nPRESENCE_PENALTY=0.8\nNUM_CTX=9\n").sampling()
    assert found == Sampling(
        temperature=0.1,
        top_p=0.2,
        top_k=3,
        min_p=0.4,
        repeat_penalty=1.5,
        seed=6,
        frequency_penalty=0.7,
        presence_penalty=0.8,
    )
    assert Modelfile().sampling() == Sampling()
    assert Modelfile(parameters=ModelParameters(top_k=-1, seed=-1)).sampling() == Sampling(top_k=0)


def test_a_folder_without_a_modelfile_has_an_empty_one(tmp_path: Path) -> None:
    assert read_modelfile(tmp_path) == Modelfile()
    assert read_modelfile(tmp_path / "nowhere") == Modelfile()
    (tmp_path / "file").touch()
    assert read_modelfile(tmp_path / "file") == Modelfile()


def test_a_modelfile_is_read_with_its_path_in_messages(tmp_path: Path) -> None:
    (tmp_path / "Modelfile").write_bytes("\ufeffSYSTEM=Grüße\nFOO=1\n".encode())
    found = read_modelfile(tmp_path)
    assert found.system == "Grüße"
    assert found.problems == (f"{tmp_path / 'Modelfile'}:2: FOO is not known and has no effect.",)


@pytest.mark.parametrize(
    ("content", "problem"), [(b"SYSTEM=\xff\xfe", "not a text in UTF-8"), (b"#" * (1 << 20) + b"##", "no Modelfile")]
)
def test_a_file_that_is_no_modelfile_is_refused_by_name(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "Modelfile").write_bytes(content)
    with pytest.raises(BadModelfile, match=problem) as caught:
        read_modelfile(tmp_path)
    assert str(tmp_path / "Modelfile") in caught.value.message


def test_a_modelfile_that_cannot_be_read_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "Modelfile").mkdir()
    with pytest.raises(StoreError, match="Modelfile cannot be read"):
        read_modelfile(tmp_path)
    assert issubclass(BadModelfile, StoreError)


def test_a_pipe_in_place_of_a_modelfile_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "Modelfile")
    with pytest.raises(StoreError, match="no plain file"):
        read_modelfile(tmp_path)


WORDS = ("FROM", "SYSTEM", "PARAMETER", "MESSAGE", "stop", "user", "NUM_CTX", "TOP_P", "export", "1", "-0.5", "é")
SIGNS = ("=", " ", "\n", "\r", "\t", '"', '"""', "'", "\\", "#", "\0", "\u2028")
PIECES = st.sampled_from((*WORDS, *SIGNS))


@given(text=st.text(max_size=200) | st.lists(PIECES, max_size=30).map("".join))
@example(text='SYSTEM="' + "\\" * 5001)
@example(text='SYSTEM="' + 'a"b' * 5000)
@example(text='STOP="a"\n' * 50_000)
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = parse_modelfile(text)
    except BadModelfile as error:
        assert error.message.startswith("Modelfile:")  # noqa: PT017 - most texts are right or wrong by chance
    else:
        assert len(found.problems) == len(found.unknown)
        found.sampling()


@given(system=st.text(st.characters(exclude_characters="\r\0"), max_size=60), context=st.integers(1, 1 << 24))
def test_what_is_written_with_escapes_comes_back(system: str, context: int) -> None:
    quoted = system.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    found = parse_modelfile(f'SYSTEM="{quoted}"\nNUM_CTX={context}\n')
    assert (found.system, found.parameters.num_ctx) == (system, context)


def test_from_is_read_without_the_rest(tmp_path: Path) -> None:
    assert read_from(tmp_path) is None
    for text, expected in [
        ("NUM_CTX=many\nFROM=x\n??\n", "x"),
        ('SYSTEM="FROM y"\nFROM x\nSYSTEM """\nFROM y\n"""', "x"),
        ("FROM x\nfrom y", "y"),
        ("FROM=", ""),
        ("TOP_K=1", None),
    ]:
        (tmp_path / "Modelfile").write_text(text, encoding="utf-8")
        assert read_from(tmp_path) == expected
    (tmp_path / "Modelfile").write_text('FROM x\nSYSTEM "open', encoding="utf-8")
    with pytest.raises(BadModelfile, match="not closed"):
        read_from(tmp_path)


@pytest.mark.parametrize("text", [OLDER_SERVER, OLLAMA])
def test_what_is_read_can_be_written(text: str) -> None:
    found = parse_modelfile(text)
    assert parse_modelfile(write_modelfile(found)) == found


def test_a_modelfile_is_written_as_ollama_has_it() -> None:
    modelfile = Modelfile(
        from_="x.rkllm",
        system="Two\nlines",
        enable_thinking=False,
        parameters=ModelParameters(num_ctx=512, temperature=0.5, stop=("User: ", "</s>")),
        messages=(Message(role="user", content="Hi!"),),
        unknown=(("VISION_ENCODER", "x.rknn"), ("PARAMETER num_gpu", "99")),
    )
    assert write_modelfile(modelfile) == (
        'FROM x.rkllm\nSYSTEM """Two\nlines"""\nENABLE_THINKING false\nPARAMETER num_ctx 512\n'
        'PARAMETER temperature 0.5\nPARAMETER stop """User: """\nPARAMETER stop </s>\nMESSAGE user Hi!\n'
        "VISION_ENCODER x.rknn\nPARAMETER num_gpu 99\n"
    )


@pytest.mark.parametrize(
    "modelfile",
    [
        Modelfile(system="a\0b"),
        Modelfile(system="\ud800"),
        Modelfile(messages=(Message(role="user", content='"""\nb'),)),
        Modelfile(messages=(Message(role="user", content="a\r\nb"),)),
        Modelfile(messages=(Message(role="tool", content="a"),)),
        Modelfile(parameters=ModelParameters(temperature=-1)),
        Modelfile(parameters=ModelParameters(stop=("",))),
        Modelfile(unknown=(("", "FROM x"),)),
        Modelfile(unknown=(("TOP_K", "1"),)),
    ],
)
def test_what_could_not_be_read_back_is_not_written(modelfile: Modelfile) -> None:
    with pytest.raises(BadModelfile, match=r"^Modelfile"):
        write_modelfile(modelfile)


TEXTS = st.lists(PIECES.filter(lambda piece: piece != "\0"), max_size=8).map("".join) | st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20
)
ROLES = st.sampled_from(["system", "user", "assistant"])
PARAMETERS = st.builds(
    ModelParameters,
    num_ctx=st.none() | st.integers(1, 1 << 24),
    num_predict=st.none() | st.integers(-2, 1 << 24),
    temperature=st.none() | st.floats(0, 100),
    top_p=st.none() | st.floats(0, 1),
    presence_penalty=st.none() | st.floats(-2, 2),
    mirostat=st.none() | st.integers(0, 2),
    seed=st.none() | st.integers(-(1 << 63), (1 << 63) - 1),
    stop=st.lists(TEXTS.filter(bool), max_size=3).map(tuple),
)
MODELFILES = st.builds(
    Modelfile,
    **{
        name: st.none() | TEXTS
        for name in ("from_", "system", "template", "huggingface_path", "adapter", "licence", "thinking_open")
    },
    enable_thinking=st.none() | st.booleans(),
    parameters=PARAMETERS,
)


@given(modelfile=MODELFILES)
@example(modelfile=Modelfile(system='a """\nb', parameters=ModelParameters(stop=('"""\n', "a\rb", '"""'))))
def test_any_modelfile_survives_writing_and_reading(modelfile: Modelfile) -> None:
    assert parse_modelfile(write_modelfile(modelfile)) == modelfile


@given(
    contents=st.lists(st.builds(lambda role, content: Message(role=role, content=content), ROLES, TEXTS), max_size=3)
)
def test_messages_survive_or_are_refused(contents: list[Message]) -> None:
    modelfile = Modelfile(messages=tuple(contents))
    try:
        text = write_modelfile(modelfile)
    except BadModelfile:
        assert any("\r" in message.content or '"""' in message.content for message in contents)
    else:
        assert parse_modelfile(text) == modelfile


@given(text=st.lists(PIECES, max_size=30).map("".join))
def test_whatever_can_be_read_can_be_written_or_is_refused(text: str) -> None:
    try:
        found = parse_modelfile(text)
        again = parse_modelfile(write_modelfile(found))
    except BadModelfile:
        return
    assert dataclasses.replace(again, problems=()) == dataclasses.replace(found, problems=())


def test_many_open_quotes_cost_no_more_than_their_lines() -> None:
    lines = 'A="\n"\n' * 100_000
    found = parse_modelfile(f"FROM m\n{lines}")
    assert (found.from_, len(found.unknown)) == ("m", 100_000)


@pytest.mark.parametrize(
    "text",
    [
        'SYSTEM="one\ntwo" # why',
        "SYSTEM='one\ntwo'",
        'SYSTEM="one\ntwo"   ',
        'SYSTEM="one\\\\\ntwo"',
        'SYSTEM="one\\"\ntwo"',
    ],
)
def test_a_text_in_quotes_over_lines(text: str) -> None:
    found = parse_modelfile(f"{text}\nNUM_CTX=7\n")
    assert (found.system or "").startswith("one")
    assert (found.system or "").endswith("two")
    assert found.parameters.num_ctx == 7


def test_a_text_that_is_too_long_is_refused_at_once() -> None:
    with pytest.raises(BadModelfile, match="is over"):
        parse_modelfile("SYSTEM " + "x" * (1 << 20))
    with pytest.raises(BadModelfile, match="would be over"):
        write_modelfile(Modelfile(from_="m", system="x" * (1 << 20)))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "FROM m\n"),
        ("# why\nFROM ./x.rkllm\nSYSTEM hi\n", "# why\nFROM m\nSYSTEM hi\n"),
        ('FROM="x.rkllm"\nNUM_CTX=7\n', 'FROM="m"\nNUM_CTX=7\n'),
        ('SYSTEM """\nFROM here\n"""\nfrom y.rkllm', 'SYSTEM """\nFROM here\n"""\nFROM m'),
        ("NUM_CTX=7\n", "FROM m\nNUM_CTX=7\n"),
        ('SYSTEM "open', 'SYSTEM "open'),
    ],
)
def test_a_modelfile_from_which_another_one_can_be_made(text: str, found: str) -> None:
    assert with_from(text, "m") == found
