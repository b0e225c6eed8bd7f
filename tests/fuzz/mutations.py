"""Inputs that are nearly right: valid documents with a part changed, and bytes that are none at all."""

import json
import random
from collections.abc import Callable, Sequence
from typing import Any

# What replaces a value, as JSON text: some of it no JSON has.
_VALUES = (
    *("null", "true", "false", "0", "-1", "1", "1e308", "1e999", "NaN", "Infinity", "-0.0", "2" * 400, "0.1"),
    *(str(2**31), str(2**63), str(2**64), str(-(2**63))),
    *(
        '""',
        '"a"',
        '".."',
        '"../../outside"',
        '"/etc/passwd"',
        '"a/b"',
        '"\\u0000"',
        '"\\ud800"',
        '"\\u202e"',
    ),
    *('"sha256:' + "0" * 64 + '"', '"sha256:"', f'"{"x" * 5000}"', '"hub:a/b"', '"http://[::1"', '"é"'),
    *("[]", "{}", "[[]]", '{"a":1}', "[null]", "[" * 50 + "]" * 50, "[" * 3000 + "]" * 3000, "[1,2,3]"),
    *('{"":{}}', '"2026-01-01T00:00:00Z"', '"9999-99-99"', "[1e999]", '["a","a"]', '{"a":"\\udfff"}'),
)
_KEYS = ("", "a", "auto_mapping", "__class__", "name", "surprise", "..", "format", "\ud800", "x" * 300)
_MARK = "\x00raw\x00"


def mutate_json(seed: bytes, chance: random.Random) -> bytes:
    """Return a JSON document with some of its values replaced, removed, doubled or renamed."""
    document = json.loads(seed)
    raw: list[str] = []
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        document = _change_node(document, chance, raw)
    text = json.dumps(document, ensure_ascii=chance.random() < 0.5)
    for number, replacement in enumerate(raw):
        text = text.replace(json.dumps(f"{_MARK}{number}"), replacement)
    if chance.random() < 0.1:
        # A key given twice: what counts is not agreed among readers.
        text = text.replace("{", '{"task": "other", ', 1)
    return text.encode("utf-8", "surrogatepass")


def _change_node(document: Any, chance: random.Random, raw: list[str]) -> Any:
    places: list[tuple[Any, Any]] = []

    if not isinstance(document, dict | list):
        return chance.choice((None, {}, [], document))

    def walk(node: Any) -> None:
        entries = node.items() if isinstance(node, dict) else enumerate(node)
        for key, value in entries:
            places.append((node, key))
            if isinstance(value, dict | list):
                walk(value)

    walk(document)
    if not places:
        return document
    parent, key = chance.choice(places)
    action = chance.choice(("value", "value", "value", "remove", "add", "swap", "rename"))
    if action == "remove":
        del parent[key]
    elif action == "swap":
        other, there = chance.choice(places)
        parent[key] = json.loads(json.dumps(other[there])) if _holds(other, there) else None
    elif action == "add" and isinstance(parent, dict):
        parent[chance.choice(_KEYS)] = _note_raw(chance.choice(_VALUES), raw)
    elif action == "rename" and isinstance(parent, dict):
        parent[chance.choice(_KEYS)] = parent.pop(key)
    elif action == "add":
        parent.insert(key, parent[key])
    else:
        parent[key] = _note_raw(chance.choice(_VALUES), raw)
    return document


def _holds(parent: Any, key: Any) -> bool:
    return key in parent if isinstance(parent, dict) else key < len(parent)


def _note_raw(text: str, raw: list[str]) -> str:
    raw.append(text)
    return f"{_MARK}{len(raw) - 1}"


def mutate_bytes(seed: bytes, chance: random.Random) -> bytes:
    """Return bytes with some flipped, removed, repeated or put in, or cut short."""
    content = bytearray(seed)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        at = chance.randrange(len(content) + 1)
        until = min(len(content), at + chance.choice((1, 1, 4, 64)))
        match chance.choice(("flip", "remove", "repeat", "put", "cut", "number")):
            case "flip" if at < len(content):
                content[at] ^= 1 << chance.randrange(8)
            case "remove":
                del content[at:until]
            case "repeat":
                content[at:at] = content[at:until] * chance.choice((1, 2, 200))
            case "put":
                content[at:at] = chance.randbytes(chance.choice((1, 2, 8)))
            case "cut":
                del content[at:]
            case "number":
                content[at : at + 8] = chance.choice((0, 1, 2**31, 2**63, 2**64 - 1)).to_bytes(8, "little")
            case _:
                content.append(0)
    return bytes(content)


def make_mixer(tokens: Sequence[bytes]) -> Callable[[bytes, random.Random], bytes]:
    """Return a mutation that puts tokens of a language into a text, takes pieces out and moves lines."""

    def mix(seed: bytes, chance: random.Random) -> bytes:
        content = seed
        for _ in range(chance.choice((1, 1, 2, 3, 8))):
            at = chance.randrange(len(content) + 1)
            match chance.choice(("put", "put", "put", "lines", "remove", "end", "replace")):
                case "put":
                    content = content[:at] + chance.choice(tokens) + content[at:]
                case "end":
                    content += chance.choice(tokens) * chance.choice((1, 1, 30))
                case "remove":
                    content = content[:at] + content[at + chance.choice((1, 3, 20)) :]
                case "replace":
                    content = content[:at] + chance.choice(tokens) + content[at + 4 :]
                case _:
                    lines = content.split(b"\n")
                    chance.shuffle(lines)
                    content = b"\n".join(lines)
        return content

    return mix


def make_random(_: bytes, chance: random.Random) -> bytes:
    """Return random bytes."""
    return chance.randbytes(chance.choice((0, 1, 8, 100, 2000)))
