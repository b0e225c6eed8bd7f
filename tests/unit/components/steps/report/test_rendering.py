"""A report in Markdown and as a page: what it says, that it fits, and that nothing from outside acts."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorry_components.metrics.pictures import choose_points, count_confusions
from lorry_components.steps.evaluate.row_changes import ChangedRow, RowChanges
from lorry_components.steps.finetune.learning_curve import LearningCurve
from lorry_components.steps.report.facts import DataFacts, GainFacts, ReportFacts, TaskFacts
from lorry_components.steps.report.markdown import MOST_CHARACTERS, render_markdown
from lorry_components.steps.report.page import render_page
from lorry_registry.records.adapter_facts import BaselineFacts, MetricFacts, SizeFacts

ATTACK = (
    "</p><script>document.title='owned'</script><img src=x onerror=alert(1)> [x](javascript:alert(2)) "
    "@everyone #1 `code` | a | **bold**\n\n# heading\n```\n</details>\u202e"
)


def make_task(name: str = "reviews", text: str = "Great value!", **changes: Any) -> TaskFacts:
    facts: dict[str, Any] = {
        "task": name,
        "status": "promoted",
        "step": "register",
        "why": "data changed since v1",
        "reasons": ("+0.021 over v1", "it is better"),
        "version": 2,
        "champion": 2,
        "run": "run-1",
        "description": text,
        "kind": "text-classification",
        "base": "minilm",
        "method": "lora r=8",
        "method_before": "lora r=4",
        "examples": 500,
        "metrics": (
            MetricFacts(title="accuracy", value=0.912, low=0.89, high=0.93),
            MetricFacts(title="f1 of spam", value=0.8, low=0.7, high=0.9),
        ),
        "gain": GainFacts(
            version=1,
            value=0.891,
            recorded=0.85,
            gain=0.021,
            p_value=0.0123,
            rows=480,
            left_out=20,
            changes=RowChanges(
                better=31,
                worse=21,
                rows=(ChangedRow(texts={"text": text}, truth="spam", before="spam (90%)", now=text),),
            ),
        ),
        "probe": BaselineFacts(name="linear probe", value=0.88, gain=0.032, low=0.01, high=0.05),
        "baselines": (BaselineFacts(name="majority class", value=0.5, gain=0.412),),
        "picture": count_confusions([text, "ham", "ham"], [text, "ham", text]),
        "validation_gap": f"accuracy is 0.760 on validation rows and 0.500 on test rows {text}",
        "curve": LearningCurve(metric=text, losses=((5, 0.7), (50, 0.31)), scores=((0, 0.5), (50, 0.88))),
        "data": DataFacts(
            source="reviews.jsonl",
            rows={"test": 500, "train": 3900},
            rows_before={"test": 500, "train": 3400},
            labels={"ham": 2000, "spam": 1900},
            labels_before={"ham": 2000, "spam": 1400},
            dropped={"duplicates": 7},
            warnings=(text,),
        ),
        "size": SizeFacts(size_bytes=302_080, trained_parameters=74_113),
        "size_before": SizeFacts(size_bytes=151_040, trained_parameters=37_057),
        "seconds": {"finetune": 40.0, "evaluate": 20.0},
        "train_seconds": 31.0,
        "device": "NVIDIA H100",
        "mlflow_url": "https://mlflow.example/#/experiments/1/runs/2",
        "kfp_url": "https://kubeflow.example/#/runs/details/3",
    }
    return TaskFacts(**(facts | changes))


def read_text(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


SAID = (
    "Promoted: v2 in place of v1, +0.021 in accuracy on the same 480 test rows, p = 0.012.",
    "accuracy 0.912",
    "0.890 to 0.930",
    "majority class 0.500, the adapter +0.412",
    "It beats the probe.",
    "v1 has accuracy 0.891 on the same rows, and 0.850 on those of its registration; 20 rows that it was",
    "3,400 → 3,900 train, 500 test rows from reviews.jsonl",
    "spam 1,400 → 1,900",
    "left out: 7 duplicates",
    "295.0 KiB, 74,113 trained parameters (before: 147.5 KiB",
    "lora r=8 (before: lora r=4) on minilm",
    "60 s, 31 s of them training on NVIDIA H100",
    "v2 answers 31 test rows better than v1 and 21 worse",
    "f1 of spam 0.800 (0.700 to 0.900)",
    "data changed since v1",
    "1 of 3 test rows are wrong",
    "accuracy is 0.760 on validation rows and 0.500 on test rows",
)


@pytest.mark.parametrize("expected", SAID)
def test_both_forms_say_the_same(expected: str) -> None:
    report = ReportFacts(title="Run run-1", tasks=(make_task(),))
    assert expected in re.sub(r"\\(.)", r"\1", render_markdown(report))
    assert expected in read_text(render_page(report))


def test_each_class_has_its_precision_and_recall() -> None:
    picture = count_confusions(["a", "a", "a", "b", "c"], ["a", "a", "b", "b", "b"])
    report = ReportFacts(title="Run run-1", tasks=(make_task(picture=picture),))
    page = read_text(render_page(report))
    assert (
        "class rows precision recall F1 a 3 1.000 0.667 0.800 b 1 0.333 1.000 0.500 c 1 - 0.000 0.000" in page
    )
    for line in ("| a | 3 | 1.000 | 0.667 | 0.800 |", "| c | 1 | - | 0.000 | 0.000 |"):
        assert line in render_markdown(report)
    many = count_confusions([str(number) for number in range(20)], ["0"] * 20)
    page = render_page(ReportFacts(title="Run", tasks=(make_task(picture=many),)))
    assert "Precision and recall" not in page


def test_the_page_has_the_learning_curve() -> None:
    page = render_page(ReportFacts(title="Run", tasks=(make_task(),)))
    assert 'aria-label="training loss from 0.7 to 0.31, step 50; validation Great value! from 0.5' in page
    assert page.count('<polyline class="line"') == 2
    one = LearningCurve(metric="rmse", losses=((1, 2.0), (2, 2.0)), scores=((2, 0.5),))
    page = render_page(ReportFacts(title="Run", tasks=(make_task(curve=one),)))
    assert page.count('<polyline class="line"') == 1
    # A level line has one number beside it; the other is the last step.
    assert page.count('text-anchor="end">2</text>') == 2
    for nothing in (None, LearningCurve(metric="rmse", losses=((1, 2.0),))):
        page = render_page(ReportFacts(title="Run", tasks=(make_task(curve=nothing),)))
        assert "Learning curve" not in page


def test_both_forms_lead_to_mlflow_and_kubeflow() -> None:
    report = ReportFacts(title="Run run-1", tasks=(make_task(),))
    for text in (render_markdown(report), render_page(report)):
        assert "https://mlflow.example/#/experiments/1/runs/2" in text
        assert "https://kubeflow.example/#/runs/details/3" in text


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"gain": None}, "Promoted: v2 with accuracy 0.912, the first champion."),
        ({"champion": 3}, "Since then v3 has become the champion."),
        (
            {"status": "challenger", "champion": 1, "against": ("it is worse",)},
            "Not promoted: v2 with accuracy 0.912, champion v1 with 0.891.\n- it is worse\n",
        ),
        (
            {"status": "challenger", "champion": None, "reasons": ("too weak",)},
            "Not promoted: v2 with accuracy 0.912.\n- too weak\n",
        ),
        (
            {"status": "challenger", "step": "prepare_data", "reasons": ("the same gate refused it",)},
            "There was nothing to train: the same gate refused it.",
        ),
        ({"status": "current", "reasons": ("v2 is up to date",)}, "nothing to train: v2 is up to date."),
        ({"status": "unchanged"}, "Training gave v2 again"),
        (
            {"status": "failed", "step": "finetune", "reasons": ("the loss became nan",)},
            "The task failed in finetune: the loss became nan",
        ),
    ],
)
def test_the_verdict_comes_first_then_its_reasons(changes: dict[str, Any], expected: str) -> None:
    report = ReportFacts(title="Run run-1", tasks=(make_task(**changes),))
    assert expected in render_markdown(report).replace("\\", "").replace("\n\n", "\n")
    shown = " ".join(line.removeprefix("- ") for line in expected.splitlines())
    assert shown in read_text(render_page(report))


def test_a_plot_of_points_is_a_table_in_markdown() -> None:
    import numpy as np

    picture = choose_points(np.arange(10.0), np.arange(10.0) + 0.5)
    report = ReportFacts(title="Run", tasks=(make_task(picture=picture, curve=None),))
    assert "| 0 to 1 | 2 | 1 | 0.5 |" in render_markdown(report)
    assert render_page(report).count("<circle") == 10


# It fits


@pytest.mark.parametrize("count", [1, 60, 400, 4000])
def test_the_markdown_fits_and_says_what_was_left_out(count: int) -> None:
    tasks = tuple(make_task(f"task-{number:04}") for number in range(count))
    text = render_markdown(ReportFacts(title="Run run-1", tasks=tasks))
    assert len(text) <= MOST_CHARACTERS
    assert ("Shortened to fit" in text) is (count > 1)
    assert "task-0000" in text
    if count == 60:
        # The least important goes first, and the decision of each task stays.
        assert "the examples of 60 tasks" in text
        assert text.count("Promoted: v2 in place of v1") == 60


def test_what_is_cut_first_is_that_of_the_last_tasks() -> None:
    tasks = tuple(make_task(f"task-{number:02}") for number in range(12))
    text = render_markdown(ReportFacts(title="Run", tasks=tasks), limit=17_000)
    assert len(text) <= 17_000
    assert "Confusion matrix" in text.partition("### task-01")[0]
    assert "Confusion matrix" not in text.partition("### task-11")[2]


def test_an_adapter_that_is_what_training_began_with_is_told() -> None:
    why = "accuracy on validation was 0.650 when training began, and 0.610 in the end"
    report = ReportFacts(title="Run run-1", tasks=(make_task(kept_start=why),))
    assert f"Only a fitted head: {why}" in re.sub(r"\\(.)", r"\1", render_markdown(report))
    assert why in read_text(render_page(report))


@settings(max_examples=60)
@given(
    st.text(max_size=4000),
    st.integers(1, 60),
    st.sampled_from(["promoted", "challenger", "failed", "current", "unchanged"]),
)
def test_whatever_the_texts_are_the_markdown_fits(text: str, count: int, status: str) -> None:
    task = make_task("t", text, reasons=(text,) * 3, status=status, single_answer=text, why=text)
    assert len(render_markdown(ReportFacts(title=text, tasks=(task,) * count))) <= MOST_CHARACTERS


# Nothing from outside acts in it


class _Outline(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "style", "onerror")]


def make_hostile_report() -> ReportFacts:
    task = make_task(
        ATTACK,
        ATTACK,
        reasons=(ATTACK,),
        metrics=(MetricFacts(title=ATTACK, value=0.5),),
        baselines=(BaselineFacts(name=ATTACK, value=0.1, gain=0.1),),
        why=ATTACK,
        run=ATTACK,
        method=ATTACK,
        base=ATTACK,
        device=ATTACK,
        single_answer=ATTACK,
        kept_start=ATTACK,
        mlflow_url='https://a.example/"><script>)](javascript:alert(1)',
    )
    failed = make_task(ATTACK, status="failed", step=ATTACK, reasons=(ATTACK,))
    return ReportFacts(title=ATTACK, tasks=(task, failed))


def test_the_page_has_no_element_of_a_text() -> None:
    outline = _Outline()
    outline.feed(render_page(make_hostile_report()))
    assert not {"script", "img", "iframe", "form"} & set(outline.tags)
    assert all(link.startswith("https://") for link in outline.links)


def test_nothing_of_a_text_is_read_as_markdown() -> None:
    text = render_markdown(make_hostile_report())
    # What stands in code spans is not read at all.
    plain = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", re.sub(r"\\`", "", text))
    for tag in re.findall(r"(?<!\\)<[^>]*>", plain):
        assert tag in ("<details>", "</details>", "<summary>", "</summary>")
    assert plain.count("<details>") == plain.count("</details>") == 4
    assert not re.search(r"(?<![\\\w])[@#](?=\w)", plain)
    assert not re.search(r"(?<!\\)\]\((?!https://)", plain)
    assert "\u202e" not in text
    assert not re.search(r"^# heading", text, re.MULTILINE)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    columns = [len(re.findall(r"(?<!\\)\|", line)) for line in rows]
    assert columns[:4] == [9, 9, 9, 9]


def test_the_page_in_a_browser(browser: Any, tmp_path: Path) -> None:
    import numpy as np

    numbers = make_task("numbers", picture=choose_points(np.arange(10.0), np.arange(10.0)))
    hostile = make_hostile_report()
    path = tmp_path / "report.html"
    path.write_text(render_page(hostile.model_copy(update={"tasks": (*hostile.tasks, numbers)})), "utf-8")
    for width in (1200, 380):
        page = browser.new_page(viewport={"width": width, "height": 900})
        complaints: list[str] = []
        page.on("console", lambda message, seen=complaints: seen.append(message.text))
        page.goto(path.as_uri())
        assert page.title() != "owned"
        # Wide tables scroll by themselves; the page does not.
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.locator("circle").first.evaluate("dot => getComputedStyle(dot).fill") != "rgb(0, 0, 0)"
        assert complaints == []
        page.close()


@pytest.mark.parametrize(
    "extra", ["", "\\", "`", "``", "~~~", "<!--", "&lt;script&gt;", "![a](https://b.example/c)"]
)
def test_a_reader_of_markdown_finds_nothing_in_a_text(extra: str) -> None:
    from markdown_it import MarkdownIt

    report = make_hostile_report()
    text = f"{extra}{ATTACK}{extra}"
    worse = make_task("reviews", text, single_answer=text, reasons=(text,), status="challenger", why=text)
    page = (
        MarkdownIt("commonmark", {"html": True})
        .enable("table")
        .render(render_markdown(report.model_copy(update={"tasks": (*report.tasks, worse)})))
    )
    outline = _Outline()
    outline.feed(page)
    allowed = {"h2", "h3", "p", "ul", "li", "strong", "a", "code", "details", "summary"}
    assert set(outline.tags) <= allowed | {"table", "thead", "tbody", "tr", "th", "td"}
    assert all(link.startswith(("https://", "text-align")) for link in outline.links)
    assert outline.tags.count("table") == 7
