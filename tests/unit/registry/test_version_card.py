from collections.abc import Callable
from typing import Any

from lorry_registry.version_card import describe_version, list_version_tags


def _describe(manifest: Any, **changes: Any) -> str:
    arguments: dict[str, Any] = {
        "version": 3,
        "adapter_id": manifest.adapter_id,
        "reasons": (),
        "promoted": True,
    }
    return describe_version(manifest, **(arguments | changes))


def test_a_card_says_what_how_good_why_and_how_to_load(make_adapter: Callable[..., Any]) -> None:
    manifest = make_adapter().manifest
    card = _describe(manifest, reasons=("0.850 is at least 0.700", "it is the first"))
    assert card.startswith("**How much a review likes its product.**\n")
    lines = card.splitlines()
    # The metric that decides comes first.
    assert lines.index("| pearson | 0.8500 | 0.8300 to 0.8700 |") < lines.index(
        "| mae | 0.4100 | 0.3800 to 0.4400 |"
    )
    assert "| Trained parameters | 20 of 22,713,216: 16 in the adapter, 4 in the head |" in lines
    assert f"| Adapter | `{manifest.adapter_id}` |" in lines
    assert "- 0.850 is at least 0.700" in lines
    assert "**The gate let it pass**" in lines
    assert 'lorry predict reviews "a text"' in lines
    assert "{" not in card


def test_a_refused_candidate_says_so(make_adapter: Callable[..., Any]) -> None:
    manifest = make_adapter().manifest
    assert "**The gate refused it: a challenger**" in _describe(manifest, promoted=False)
    tags = list_version_tags(manifest, version=3, adapter_id=manifest.adapter_id, promoted=False)
    assert (tags["lorry.decision"], tags["lorry.version"]) == ("refused", "3")


def test_texts_from_outside_do_not_break_the_tables(make_adapter: Callable[..., Any]) -> None:
    manifest = make_adapter(
        owner="a | b\n# title", description="first\nsecond {task}", labels=("yes|no", "maybe")
    ).manifest
    lines = _describe(manifest, reasons=("one\ntwo",)).splitlines()
    assert lines[0] == "**first second {task}**"
    assert "| Owner | a \\| b # title |" in lines
    assert "| Labels | yes\\|no, maybe |" in lines
    assert "- one two" in lines


def test_a_task_without_a_description_gets_a_title(make_adapter: Callable[..., Any]) -> None:
    manifest = make_adapter(description="", owner="").manifest
    lines = _describe(manifest).splitlines()
    assert lines[0] == "**reviews v3**"
    assert "| Owner | not given |" in lines
    assert "- no reason was given" in lines
