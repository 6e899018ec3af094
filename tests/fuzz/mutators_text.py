"""Filter expressions, JSON lines and ids: valid ones that were made up, and others that were spoilt."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from mutators import Random, mutate_bytes


def _spliced(seeds: Callable[[], Iterator[bytes]], tokens: list[bytes]) -> Callable[[bytes, Random], bytes]:
    """Return a mutation that works with tokens of a language, and with parts of its valid inputs."""
    cache: list[bytes] = []

    def mutate(data: bytes, rng: Random) -> bytes:
        if not cache:
            cache.extend(seeds())
        out = data
        for _ in range(rng.choice((1, 1, 2, 3, 6))):
            at = rng.randrange(len(out) + 1)
            end = min(len(out), at + rng.choice((0, 0, 1, 2, 5)))
            step = rng.randrange(4)
            if step == 0:
                out = mutate_bytes(out, rng)
            elif step == 1:
                other = rng.choice(cache)
                start = rng.randrange(len(other) + 1)
                out = out[:at] + other[start : start + rng.randrange(1, 40)] + out[end:]
            else:
                out = out[:at] + rng.choice(tokens) + out[end:]
        return out

    return mutate


def filter_seeds() -> Iterator[bytes]:
    """Yield expressions of every kind."""
    for text in (
        "n >= 1",
        "n = 3 and b = true or not (f < 0.5)",
        "s in ('v1', 'v2', 3)",
        "s not in ()",
        "s contains 'v'",
        "z is null",
        "z is not null",
        "exists a.b",
        'exists("a.b")',
        "\"s\" <> 'it''s'",
        "f = -1.5e-3",
        "n < inf",
        "not not n != 2",
        "(((n = 1)))",
        "b = false",
        "n in (1, 2.0, true)",
        "Ω = 'ω'",
        "f > +.5 and f <= 7.",
        "n = 9223372036854775807",
        "n >= -9223372036854775808",
        "n < 1e308",
        "s >= 'v1' and s < 'v3'",
    ):
        yield text.encode()


def _filter_text(rng: Random, depth: int = 0) -> str:
    """Return a valid expression."""
    key = rng.choice(("n", "f", "b", "s", "z", "a.b", '"s"', '"a b"', "missing", '"""n"'))
    step = rng.randrange(9 if depth < 5 else 6)
    value = rng.choice(
        (
            "0",
            "3",
            "-2",
            "1.5",
            "2.0",
            "-0.0",
            "1e3",
            "inf",
            "-inf",
            "true",
            "false",
            "'v1'",
            "''",
            "'it''s'",
            "9223372036854775807",
            "9007199254740993",
            "9007199254740992.0",
            "0.1",
            "18446744073709551615",
            "'Ω'",
        )
    )
    if step == 0:
        text = rng.choice(("'v'", "''", "'1'"))
        return f"{key} contains {text}"
    if step == 1:
        return f"{key} is {rng.choice(('', 'not '))}null"
    if step == 2:
        return f"exists {key}"
    if step == 3:
        items = ", ".join(rng.choice(("1", "'v2'", "true", "2.0", value)) for _ in range(rng.randrange(4)))
        return f"{key} {rng.choice(('', 'not '))}in ({items})"
    if step < 6:
        return f"{key} {rng.choice(('=', '==', '!=', '<>', '<', '<=', '>', '>='))} {value}"
    if step == 6:
        return f"not {_filter_text(rng, depth + 1)}"
    first, second = _filter_text(rng, depth + 1), _filter_text(rng, depth + 1)
    text = f"{first} {rng.choice(('and', 'or', 'AND', 'Or'))} {second}"
    return f"({text})" if rng.randrange(2) else text


_FILTER_TOKENS = [
    *(b" and ", b" or ", b"not ", b"(", b")", b" in ", b" is ", b"null", b"true", b"false", b"exists ", b","),
    *(
        b" contains ",
        b"=",
        b"==",
        b"!=",
        b"<>",
        b"<",
        b"<=",
        b">",
        b">=",
        b"'",
        b"''",
        b'"',
        b'""',
        b".",
        b"-",
        b"+",
    ),
    *(
        b"inf",
        b"nan",
        b"1e400",
        b"-0.0",
        b"18446744073709551616",
        b"n",
        b"f",
        b"b",
        b"s",
        b"z",
        b"a.b",
        b"\0",
    ),
    *(
        "Ω".encode(),
        "\u2028".encode(),
        "٣".encode(),
        b"\xff",
        b"(" * 70,
        b"not " * 70,
        b"0x1",
        b"1_0",
        b"1e5",
        b"2.5",
    ),
]
_splice_filter = _spliced(filter_seeds, _FILTER_TOKENS)


def mutate_filter(data: bytes, rng: Random) -> bytes:
    """Make another valid expression, or spoil this one."""
    return _filter_text(rng).encode() if rng.randrange(3) else _splice_filter(data, rng)


def jsonl_seeds() -> Iterator[bytes]:
    """Yield records of every shape."""
    yield (
        b'{"id": 1, "vector": [1, 2.5, -3e-2],'
        b' "metadata": {"n": 1, "s": "a", "f": 0.5, "b": true, "z": null}}\n'
    )
    yield (
        b'{"id": "a", "embedding": [1, 2], "n": 1}\n\n'
        b'{"id": {"hex": "00ff"}, "embedding": [0, -0.0], "s": "x"}'
    )
    yield (
        b'{"vector": [1e38, 1e-45], "n": {"float": "nan"}}\r\n{"vector": [0, 0], "n": 9223372036854775807}\n'
    )
    yield (
        '{"vector": [1], "text": "\\u00fc\\ud83d\\ude00 \\n é 日本"}\n{"vector": [2], "tags": [1, {"a": []}]}'
    ).encode()
    yield (
        b'\xef\xbb\xbf{"vector": [0.1, 0.2, 0.30000000000000004, 123456789012345678901234567890],'
        b' "id": 18446744073709551615}'
    )


_JSON_TOKENS = [
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b'"',
        b"\n",
        b"\r\n",
        b"null",
        b"true",
        b"false",
        b"0",
        b"-0",
        b"1e5",
    ),
    *(
        b"1e999",
        b"-1e-999",
        b"0.1",
        b"3.4028235677973366e38",
        b"18446744073709551616",
        b"-9223372036854775809",
    ),
    *(
        b'"id"',
        b'"vector"',
        b'"metadata"',
        b'"hex"',
        b'"float"',
        b'{"hex": "0g"}',
        b'{"float": "inf"}',
        b"\\ud800",
    ),
    *(
        b"\\u0000",
        b"\\",
        b"\xff",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"[" * 70,
        b"NaN",
        b"Infinity",
        b" ",
        b"\t",
    ),
    *(b"1" * 400, b"0." + b"0" * 400 + b"1", b"9" * 30 + b"e-30", b'"id": 1, ', b'{"vector": [1, 2]}\n'),
]
_splice_jsonl = _spliced(jsonl_seeds, _JSON_TOKENS)


def _json_lines(rng: Random) -> bytes:
    """Return lines of which most can become records."""
    values = (
        "1",
        "-1.5",
        "true",
        "null",
        '"text"',
        '"\\u00e9\\n"',
        "9223372036854775807",
        "1e308",
        '{"float": "nan"}',
        '{"float": "-inf"}',
        '{"hex": "00ff"}',
        "[1, 2]",
        '{"a": {"b": 1}}',
        '""',
        "1e-400",
        "9223372036854775808",
        '"' + "x" * 300 + '"',
    )
    ids = ("1", '"a"', '{"hex": "0102"}', "18446744073709551615", '"1"', "0", "-1", "null")
    numbers = ("1", "0.1", "-0.0", "3.4028234e38", "1e-46", "16777217", "0.30000000000000004", "1E+2", "1e39")
    dim = rng.randrange(1, 4)
    keys = rng.sample(("n", "s", "f", "metadata", "tags", "\\u006e", "é"), rng.randrange(4))
    lines = []
    for _ in range(rng.randrange(1, 6)):
        fields = ['"vector": [' + ", ".join(rng.choice(numbers[:8]) for _ in range(dim)) + "]"]
        if keys and rng.randrange(6):
            fields.insert(0, f'"id": {rng.choice(ids[:6])}')
        fields += [f'"{key}": {rng.choice(values)}' for key in keys]
        if rng.randrange(6) == 0:
            rng.shuffle(fields)
        lines.append("{" + ", ".join(fields) + "}" + rng.choice(("", " ", "\r")))
    return "\n".join(lines).encode() + rng.choice((b"", b"\n", b"\n\n"))


def mutate_jsonl(data: bytes, rng: Random) -> bytes:
    """Make other records, or spoil these."""
    return _json_lines(rng) if rng.randrange(3) == 0 else _splice_jsonl(data, rng)


def id_seeds() -> Iterator[bytes]:
    """Yield ids as typed and as JSON."""
    yield from (
        b"42",
        b"text:42",
        b"hex:00ff",
        b"word",
        b'"7"',
        b'{"hex": "00ff"}',
        b'{"id": "a"}',
        b"18446744073709551615",
    )
    yield from (
        b"hex:",
        b"text:",
        b"-1",
        b"007",
        "日本".encode(),
        b'{"id": {"hex": "ff"}}',
        b'{"id": 3, "distance": 1}',
    )


_ID_TOKENS = [
    *(t for t in _JSON_TOKENS if len(t) < 50),
    b"hex:",
    b"text:",
    b"00",
    b"ff",
    "٣".encode(),
    b"\xc3",
]
mutate_ids = _spliced(id_seeds, _ID_TOKENS)
