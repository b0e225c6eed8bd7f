"""Tiny data for the tasks of the frozen adapters."""

import base64
import csv
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Document = dict[str, Any]

PROMPT = "a photo of sks dog"
"""What all photographs show."""

_GOOD = ("good", "great", "superb", "lovely", "bright", "moving")
_BAD = ("bad", "awful", "dull", "weak", "boring", "poor")
_FILLERS = (
    "the",
    "a",
    "film",
    "was",
    "so",
    "very",
    "and",
    "story",
    "it",
    "is",
    "plot",
    "cast",
    "quite",
    "of",
)
_PLACES = ("depot", "mill", "museum", "bakery", "library", "station")
_TIMES = ("six", "seven", "eight", "nine", "ten", "noon")
_NAMES = ("Aromi", "Cotto", "Zizzi", "Wildwood")
_FOODS = ("French", "Indian", "Italian")
_AREAS = ("riverside", "centre")
_TOWNS = tuple(
    f"{first}{last}" for first in ("river", "lake", "stone", "wood") for last in ("ton", "ham", "by")
)
_SIZES = ("old", "new", "great", "little")
_COUNTRIES = ("norway", "spain", "chile")


def write_data(folder: Path) -> None:
    """Write the sources of all tasks."""
    folder.mkdir(parents=True)
    for name, rows in list_tables().items():
        if name.endswith(".jsonl"):
            (folder / name).write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
        else:
            _write_parts(folder / name, rows)
    _paint_photographs(folder / "photographs")


def list_feelings() -> Mapping[str, int]:
    """Return the texts of reviews, and for each whether it is a good one."""
    return {row["text"]: int(row["label"] == "good") for row in _write_reviews(80)}


def list_tables() -> Mapping[str, list[Document]]:
    """Return the rows of each source of texts, by its name."""
    return {
        "reviews.jsonl": list(_write_reviews(80)),
        "pairs.jsonl": list(_write_pairs(60)),
        "likeness": list(_write_likeness(48)),
        "questions.jsonl": list(_write_questions(40)),
        "restaurants.jsonl": list(_write_restaurants()),
        "towns.jsonl": list(_write_towns()),
    }


def _write_reviews(count: int) -> Iterator[Document]:
    chance = _start_chance(1)
    for _ in range(count):
        is_good = chance.random() < 0.5
        label, other = ("good", "bad") if is_good else ("bad", "good")
        yield {"text": _write_sentence(chance, is_good), "label": label, "draft": other}


def _write_pairs(count: int) -> Iterator[Document]:
    chance = _start_chance(2)
    for _ in range(count):
        first, second = chance.random() < 0.5, chance.random() < 0.5
        yield {
            "text": _write_sentence(chance, first),
            "text_pair": _write_sentence(chance, second),
            "label": int(first == second),
        }


def _write_likeness(count: int) -> Iterator[Document]:
    chance = _start_chance(3)
    for _ in range(count):
        first, second = chance.sample(_GOOD, 3), chance.sample(_GOOD, 3)
        score = round(5 * len({*first} & {*second}) / 3 + chance.random(), 2)
        yield {"first": " and ".join(first), "second": " and ".join(second), "score": score}


def _write_questions(count: int) -> Iterator[Document]:
    chance = _start_chance(4)
    for _ in range(count):
        places, times = chance.sample(_PLACES, 2), chance.sample(_TIMES, 2)
        opens, closes = (f"the {place} opens at {time}" for place, time in zip(places, times, strict=True))
        asked = chance.choice([*places, "zoo"])
        context = f"{opens} . {closes} ."
        answer = [{"text": times[places.index(asked)]}] if asked in places else []
        yield {"question": f"when does the {asked} open ?", "context": context, "answers": answer}


def _write_restaurants() -> Iterator[Document]:
    for name in _NAMES:
        for food in _FOODS:
            for area in _AREAS:
                meaning = f"name[{name}], food[{food}], area[{area}]"
                yield {"mr": meaning, "ref": f"{name} has {food} food, {area}."}


def _write_towns() -> Iterator[Document]:
    for size in _SIZES:
        for number, town in enumerate(_TOWNS):
            yield {"subject": f"{size} {town}", "object": _COUNTRIES[number % 3]}


def _write_sentence(chance: random.Random, is_good: bool) -> str:
    words = chance.choices(_FILLERS, k=chance.randint(2, 8))
    words.insert(chance.randint(0, len(words)), chance.choice(_GOOD if is_good else _BAD))
    return " ".join(words)


def _write_parts(folder: Path, rows: Sequence[Document]) -> None:
    folder.mkdir()
    for part, chosen in {"train": rows[12:], "dev": rows[:6], "test": rows[6:12]}.items():
        with (folder / f"{part}.csv").open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(chosen)


def _paint_photographs(folder: Path, count: int = 6, side: int = 64) -> None:
    """Write images of a disc on a ground, each with another place and ground."""
    folder.mkdir()
    rows, columns = np.mgrid[:side, :side]
    for number in range(count):
        pixels = np.full((side, side, 3), (40 + 9 * number, 120, 200 - 7 * number), dtype=np.uint8)
        centre = side * (0.35 + 0.03 * number)
        pixels[(rows - centre) ** 2 + (columns - side / 2) ** 2 < (side / 4) ** 2] = (230, 60, 30)
        Image.fromarray(pixels).save(folder / f"{number}.png", optimize=True)
    table = [{"file_name": f"{number}.png", "text": PROMPT} for number in range(count)]
    (folder / "metadata.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in table), "utf-8")


def _start_chance(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311


def add_photograph(rows: Sequence[Mapping[str, str]], data: Path) -> list[Mapping[str, str]]:
    """Return rows and one more, with a photograph: of that it is measured how well noise is told."""
    image = base64.b64encode((data / "photographs" / "0.png").read_bytes()).decode("ascii")
    return [*rows, {"text": PROMPT, "image": image}]
