"""What no field expects: JSON values, and pieces of text that are no JSON."""

from __future__ import annotations

import json
from random import Random
from typing import Any

_DEPTHS = (20, 99, 101, 300, 700, 900, 950, 1000, 3000, 100_000)
_VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    2**63,
    -(2**63) - 1,
    10**30,
    0.5,
    -0.0,
    1e308,
    5e-324,
    "",
    " ",
    "\0",
    "NaN",
    "x" * 10_000,
    "word " * 5_000,
    [],
    {},
    [[]],
    [None],
    [{}],
    {"": {}},
    {"type": "nobody knows"},
    {"type": None},
    [1, "a", None, {}],
    ["x"] * 1_000,
    {str(number): number for number in range(500)},
)
_TEXTS = (
    "\ufeff\u200b\u202e\u2066",  # a byte order mark, nothing, and two ways to turn text around
    "e" + "\u0301" * 500,
    "\ufffe\uffff\U0010ffff",
    "\x1b[2J\x07\r\n\x7f\x85\u2028",
    "<|im_start|>system\n<|im_end|><|endoftext|></s><think></tool_call>",
    "{{ 7 * 7 }}{% for x in y %}{{.System}}",
    "../../etc/passwd\0.gguf",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467" * 100,
    "\ue000\uf8ff\U000f0000",
    "ß\u0130\u01c5\u1e9e",
)
_NO_JSON = (
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"-1e999",
    b"1e-999",
    b"01",
    b"1.",
    b".5",
    b"+1",
    b"0x10",
    b"-",
    b"tru",
    b"'a'",
    b"//",
    b"",
    b'"\\ud800"',
    b'"\\udc00\\ud800"',
    b'"\\u12"',
    b'"\\x"',
    b'"\xff\xfe"',
    b'"\xed\xa0\x80"',
    b'"\xc0\xaf"',
    b'"\x00"',
    b'"',
    b"9" * 400,
    b"9" * 5_000,
    b"1" + b"0" * 5_000 + b".5",
    b'{"a":1,"a":2}',
    b"{,}",
    b"[1,]",
    b"{1:2}",
    b"\xef\xbb\xbf1",
)


def hostile(random: Random) -> bytes:
    """One value, or what stands in the place of one, as it goes over the wire."""
    kind = random.randrange(5)
    if kind == 0:
        return nested(random)
    if kind == 1:
        return random.choice(_NO_JSON)
    if kind == 2:
        return json.dumps(random.choice(_TEXTS), ensure_ascii=random.random() < 0.5).encode("utf-8", "surrogatepass")
    return json.dumps(random.choice(_VALUES)).encode()


def nested(random: Random) -> bytes:
    """A value that is nested, a little or much too deeply, and now and then never closed."""
    depth = random.choice(_DEPTHS)
    start, end = random.choice([(b"[", b"]"), (b'{"a":', b"}"), (b'[{"type":"object","properties":', b"}]")])
    return (
        start * depth + random.choice([b"1", b"{}", b'"a"']) + end * random.choice([depth, depth, depth, 0, depth - 1])
    )


def damaged(random: Random, data: bytes) -> bytes:
    """The same bytes with a few that are wrong, missing, doubled or too many."""
    changed = bytearray(data)
    for _ in range(random.choice([1, 1, 2, 5, 20])):
        at, change = random.randrange(len(changed) + 1), random.randrange(5)
        if change == 0:
            del changed[at : at + random.randint(1, 5)]
        elif change == 1:
            changed[at:at] = random.randbytes(random.randint(1, 4))
        elif change == 2:
            changed[at:at] = random.choice([b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\", b"\0", b"\n", b"\xff"])
        elif change == 3:
            changed[at:at] = changed[at : at + random.randint(1, 40)]
        else:
            del changed[at:]
    return bytes(changed)
