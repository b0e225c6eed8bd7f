"""The published tables: counts are exact, memory is within a tenth, every difference has its reason."""

import dataclasses
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "tests/benchmarks/experiments/published_figures.py"

COUNTS = {
    "roberta-base lora r=8": 294_912,
    "roberta-large lora r=8": 786_432,
    "deberta-v2-xxlarge lora r=16": 4_718_592,
    "gpt2-medium lora r=4": 393_216,
    "gpt2-large lora r=4": 737_280,
    "mt0-large lora r=8": 2_359_296,
    "roberta-base bitfit": 102_144,
    "roberta-base adapter-d r=48 in all layers": 894_528,
    "roberta-base adapter-d r=48 in layers 8-11": 298_176,
    "roberta-large adapter-p r=64": 3_171_840,
    "roberta-large adapter-p r=16": 811_392,
    "roberta-large adapter-h r=64": 6_343_680,
    "roberta-large adapter-h r=8": 835_968,
    "gpt2-medium adapter-l r=6": 368_784,
    "gpt2-medium adapter-l r=224": 11_089_152,
    "gpt2-large adapter-l r=8": 875_808,
    "gpt2-large adapter-l r=248": 23_002_848,
    "gpt2-medium adapter-h r=112": 11_064_576,
    "gpt2-medium ft-top 2 layers": 25_192_448,
    "bert-base-cased p-tuning 9 tokens, LSTM": 8_278_272,
    "roberta-large p-tuning-v2 128 tokens": 6_291_456,
    "bert-base-cased prompt-tuning 20 tokens": 15_360,
}
FIELDS = {
    "name",
    "method",
    "trainable_parameters",
    "total_parameters",
    "published",
    "memory_gib",
    "published_gib",
}


@pytest.fixture(scope="module")
def script() -> Any:
    spec = importlib.util.spec_from_file_location("published_figures", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # A dataclass looks its module up.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def figures(script: Any) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(script.FIGURES.read_text("utf-8"))
    return read if script.has_diffusers() else read | {"image_memory": []}


@pytest.fixture(scope="module")
def published_rows(script: Any, figures: dict[str, Any]) -> dict[str, Any]:
    return {row.name: row for row in script.list_published_rows(figures)}


@pytest.mark.parametrize("name", COUNTS)
def test_trained_parameters_are_exact(name: str, published_rows: dict[str, Any]) -> None:
    assert published_rows[name].trainable_parameters == COUNTS[name]


@pytest.mark.parametrize(
    ("name", "total"),
    [
        ("mt0-large lora r=8", 1_231_940_608),
        ("gpt2-medium full", 354_823_168),
        ("gpt2-large full", 774_030_080),
        ("T0_3B full", 2_849_757_184),
        ("mt0-xxl full", 12_921_057_280),
        ("bloomz-7b1 full", 7_069_016_064),
    ],
)
def test_bases_are_as_large_as_they_are_known_to_be(
    name: str, total: int, published_rows: dict[str, Any]
) -> None:
    assert published_rows[name].total_parameters == total


@pytest.mark.parametrize("name", ["T0_3B full", "T0_3B lora", "mt0-xxl lora", "bloomz-7b1 lora"])
def test_memory_is_within_a_tenth(name: str, published_rows: dict[str, Any]) -> None:
    row = published_rows[name]
    assert row.memory_gib == pytest.approx(row.published_gib, rel=0.1)
    assert row.memory_range_gib is not None
    low, high = row.memory_range_gib
    assert low <= row.published_gib <= high


@pytest.mark.parametrize("name", ["mt0-xxl full", "bloomz-7b1 full"])
def test_a_run_out_of_memory_does_not_fit(name: str, published_rows: dict[str, Any]) -> None:
    row = published_rows[name]
    assert row.published_gib is None
    assert row.memory_range_gib is not None
    assert row.memory_range_gib[0] > 80
    assert row.agrees


@pytest.mark.parametrize("name", ["T0_3B lora", "mt0-xxl lora", "bloomz-7b1 lora"])
def test_an_offloaded_base_takes_less_than_one_that_is_not(name: str, published_rows: dict[str, Any]) -> None:
    whole, offloaded = published_rows[name].memory_gib, published_rows[f"{name}, offload"].memory_gib
    assert whole is not None
    assert offloaded is not None
    # What is trained and what passes stay: no more than the frozen weights is saved.
    assert whole - 4 * published_rows[name].total_parameters / 2**30 < offloaded < whole / 3
    assert offloaded <= (published_rows[f"{name}, offload"].published_gib or 0)


def test_every_difference_has_its_reason(published_rows: dict[str, Any]) -> None:
    assert [name for name, row in published_rows.items() if not row.agrees and not row.reason] == []


def test_the_rows_that_differ_are_the_known_ones(published_rows: dict[str, Any]) -> None:
    differing = {name for name, row in published_rows.items() if not row.agrees}
    assert differing == {
        "roberta-base full",
        "roberta-large full",
        "deberta-v2-xxlarge full",
        "gpt2-medium full",
        "roberta-large adapter-p r=64",
        "roberta-large adapter-h r=64",
        "gpt2-medium adapter-h r=112",
        "gpt2-medium lora r=4",
        "gpt2-large lora r=4",
        "gpt2-medium prelayer 14 tokens",
        "gpt2-large prelayer 17 tokens",
        "T0_3B lora, offload",
        "mt0-xxl lora, offload",
        "bloomz-7b1 lora, offload",
    }


def test_the_runs_of_stable_diffusion(published_rows: dict[str, Any]) -> None:
    pytest.importorskip("diffusers", reason="diffusers is not installed: pip install lorry[images]")
    rows = [row for name, row in published_rows.items() if name.startswith("stable-diffusion-v1-4 ")]
    assert [row.published_gib for row in rows] == [27.5, 15.5, 8.12]
    assert [row.trainable_parameters for row in rows] == [982_581_444, 2_184_192, 2_184_192]
    assert [row.memory_gib for row in rows] == pytest.approx([25.7, 14.1, 8.4], abs=0.05)
    assert all(row.agrees for row in rows)
    # The range is what a plan of one's own shows: what was measured lies in it.
    assert all(
        row.memory_range_gib and row.memory_range_gib[0] < (row.published_gib or 0) < row.memory_range_gib[1]
        for row in rows
    )


def test_rows_are_plain_values(published_rows: dict[str, Any]) -> None:
    for row in published_rows.values():
        document = json.loads(json.dumps(dataclasses.asdict(row)))
        assert document.keys() >= FIELDS
        assert (document["memory_gib"] is None) == (document["memory_range_gib"] is None)


@pytest.mark.parametrize(
    ("text", "value", "tolerance"),
    [("0.35M", 350_000, 5_000), ("1.5B", 1.5e9, 5e7), ("2,359,296", 2_359_296, 0.5)],
)
def test_printed_counts_are_read_with_their_precision(
    script: Any, text: str, value: float, tolerance: float
) -> None:
    assert script.parse_count(text) == pytest.approx((value, tolerance))


def test_the_tables(script: Any, published_rows: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    rows = list(published_rows.values())
    script.print_rows(rows)
    shown = capsys.readouterr().out
    assert "mt0-large lora r=8" in shown
    assert "2,359,296" in shown
    assert "out of memory" in shown
    images = sum(name.startswith("stable-diffusion") for name in published_rows)
    assert f"{23 + images} of {37 + images} agree with the published figures" in shown


def test_a_row_that_fails_does_not_hide_the_others(
    script: Any, figures: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = figures["counts"][:2]
    few = figures | {"counts": [first | {"method": "none"}, second], "memory": [], "image_memory": []}
    rows = script.list_published_rows(few)
    assert [row.is_planned for row in rows] == [False, True]
    assert rows[0].reason == "not planned: KeyError: 'none'"
    script.print_rows(rows)
    shown = capsys.readouterr().out
    assert "roberta-base none: KeyError: 'none'" in shown
    assert "roberta-base bitfit" in shown


@pytest.mark.parametrize(
    ("name", "label", "published"), [("r", "r=8", "91.6"), ("targets", "targets=qv", "73.7")]
)
def test_a_grid_beside_the_published_study(
    name: str, label: str, published: str, script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = {"metric": "accuracy", "grid": {name: []}, "rows": [{"label": label, "value": 0.5}]}
    (tmp_path / "results.json").write_text(json.dumps(results), "utf-8")
    script.main(["--study", str(tmp_path / "results.json")])
    shown = capsys.readouterr().out
    assert published in shown
    assert "GPT-3 175B" in shown
