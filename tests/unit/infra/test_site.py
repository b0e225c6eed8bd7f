"""The documentation as a site: it is built strictly, and loads nothing from elsewhere."""

import functools
import html
import importlib.util
import re
import shutil
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import click
import pytest

from lorry_components.methods import METHODS
from lorry_components.task_types import TASK_TYPES
from lorry_pipelines.cli import lorry
from lorry_pipelines.cli.retrain import EXIT_LEFT
from lorry_pipelines.cli.stale import EXIT_STALE
from lorry_registry.cli.lazy import EXIT_INTERRUPTED
from lorry_registry.cli.termination import EXIT_TERMINATED
from lorry_registry.errors import LorryError
from lorry_registry.settings import SETTINGS
from lorry_registry.tasks.task_section import Section

from fixtures.doc_blocks import PROJECT

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]
# What a browser fetches without being asked: the attributes with its address, by element.
_FETCHED = {
    "script": ("src",),
    "img": ("src", "srcset"),
    "iframe": ("src",),
    "source": ("src", "srcset"),
    "video": ("src", "poster"),
    "audio": ("src",),
    "embed": ("src",),
    "object": ("data",),
    "use": ("href", "xlink:href"),
    "link": ("href",),
}
# Links that say something of the page, and fetch nothing.
_STATED = {"canonical", "prev", "next", "alternate", "license", "edit"}
_ELSEWHERE = re.compile(r"^\s*(?:[a-z]+:)?//", re.IGNORECASE)
_IN_STYLES = re.compile(r"""(?:url\(|@import)\s*["']?(?:https?:)?//[^)"']*""", re.IGNORECASE)


def _copy_project(folder: Path) -> Path:
    """Return a copy of what the site is made of."""
    for name in ("mkdocs", "material", "mkdocstrings", "mermaidx"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed: make docs installs it")
    for name in ("docs", "infra/docs"):
        shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pipelines", "tests", "components", "registry"):
        (folder / name).symlink_to(PROJECT / name)
    for path in (PROJECT / "infra").iterdir():
        if path.name != "docs":
            (folder / "infra" / path.name).symlink_to(path)
    for name in ("README.md", "CONTRIBUTING.md"):
        shutil.copyfile(PROJECT / name, folder / name)
    return folder


def _build(project: Path) -> Path:
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    build(load_config(str(project / "infra" / "docs" / "mkdocs.yml")))
    return project / "build" / "site"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _build(_copy_project(tmp_path_factory.mktemp("project")))


class _Addresses(HTMLParser):
    """The addresses that a browser fetches with a page."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        if tag == "link" and set(values.get("rel", "").split()) & _STATED:
            return
        self.fetched += [values[name] for name in _FETCHED.get(tag, ()) if name in values]
        self.fetched += [found.split("(")[-1] for found in _IN_STYLES.findall(values.get("style", ""))]


def _find_foreign(page: Path) -> list[str]:
    text = page.read_text("utf-8")
    if page.suffix == ".css":
        return _IN_STYLES.findall(text)
    parser = _Addresses()
    parser.feed(text)
    return [address for address in parser.fetched if _ELSEWHERE.match(address)] + _IN_STYLES.findall(text)


def test_a_lost_link_stops_the_site(tmp_path: Path) -> None:
    from mkdocs.exceptions import Abort

    project = _copy_project(tmp_path)
    page = project / "docs" / "concepts.md"
    page.write_text(page.read_text("utf-8") + "\n[lost](nowhere.md)\n", "utf-8")
    with pytest.raises(Abort):
        _build(project)


def test_the_site_has_the_readme_and_the_pages(site: Path) -> None:
    assert "on one frozen base" in (site / "index.html").read_text("utf-8")
    for page in (PROJECT / "docs").glob("*.md"):
        assert (site / page.stem / "index.html").exists()


def test_results_link_the_lab_book_and_its_pictures_are_there(site: Path) -> None:
    results = (site / "measured" / "index.html").read_text("utf-8")
    assert 'href="../lab-book/#time-to-quality"' in results
    pictures = re.findall(r'<img [^>]*src="([^"]+)"', (site / "lab-book" / "index.html").read_text("utf-8"))
    assert pictures
    assert all((site / "lab-book" / picture).resolve().is_file() for picture in pictures)


def _read_text(site: Path, page: str) -> str:
    return html.unescape(re.sub(r"<[^>]+>", "", (site / page / "index.html").read_text("utf-8")))


def test_the_reference_has_every_command_with_its_options(site: Path) -> None:
    text = _read_text(site, "commands")
    for path, command in _list_commands(lorry, "lorry"):
        assert path in text
        for parameter in command.params:
            assert isinstance(parameter, click.Argument) or parameter.opts[0] in text, f"{path} {parameter}"


def _list_commands(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    ctx = click.Context(group)
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        assert command is not None
        yield f"{path} {name}", command
        if isinstance(command, click.Group):
            yield from _list_commands(command, f"{path} {name}")


def test_the_reference_has_every_kind_field_method_and_option(site: Path) -> None:
    page = (site / "task-file" / "index.html").read_text("utf-8")
    methods = (site / "methods" / "index.html").read_text("utf-8")
    named = set(TASK_TYPES)
    for section in Section.__subclasses__():
        # The profile of a cluster has sections, too.
        if section.__module__.startswith("lorry_registry.tasks."):
            named |= section.model_fields.keys()
    # Options stand beside a method's name.
    named -= {"options"}
    rows = set(re.findall(r"<tr>\s*<td><code>(?:\w+\.)*([\w-]+)</code></td>", page))
    assert rows == named
    for method in METHODS.values():
        assert f'id="{method.name}"' in methods
        assert {f"<code>{option}</code>" in methods for option in method.options_model.model_fields} <= {True}


def test_the_reference_has_every_setting(site: Path) -> None:
    text = _read_text(site, "settings")
    for setting in SETTINGS:
        assert setting.variable in text
        assert setting.key in text


def test_the_reference_has_the_exit_code_of_each_error(site: Path) -> None:
    page = (site / "exit-codes" / "index.html").read_text("utf-8")
    rows = dict(re.findall(r"<tr>\s*<td>(\d+)</td>(.*?)</tr>", page, re.DOTALL))
    for error in _list_errors(LorryError):
        assert (
            error.__name__.startswith("_") or f"<code>{error.__name__}</code>" in rows[str(error.exit_code)]
        )
    assert {"0", str(EXIT_STALE), str(EXIT_LEFT), str(EXIT_INTERRUPTED), str(EXIT_TERMINATED)} <= rows.keys()


def _list_errors(error: type[LorryError]) -> Iterator[type[LorryError]]:
    yield error
    for below in error.__subclasses__():
        yield from _list_errors(below)


def test_the_reference_has_the_python_interface_without_sphinx_roles(site: Path) -> None:
    text = _read_text(site, "python")
    for name in ("lorry_registry.registry.Registry", "lorry_components.inference.load_adapter", "rollback"):
        assert name in text
    assert re.search(r":(class|func|meth|mod|data):", text) is None


def test_what_is_not_on_the_site_is_named_once(site: Path) -> None:
    text = _read_text(site, "settings")
    assert "images (infra/images/README.md)" in text
    assert "(tests/benchmarks/measurements)" in _read_text(site, "lab-book")


def test_a_table_that_is_not_generated_stops_the_site(tmp_path: Path) -> None:
    from mkdocs.exceptions import Abort

    project = _copy_project(tmp_path)
    (project / "docs" / "concepts.md").write_text("<!-- generated: nothing -->\n", "utf-8")
    with pytest.raises(Abort, match="nothing"):
        _build(project)


def test_no_page_names_a_file_of_another_host(site: Path) -> None:
    pages = [*site.rglob("*.html"), *site.rglob("*.css")]
    assert len(pages) > 30
    assert {page.name: foreign for page in pages if (foreign := _find_foreign(page))} == {}


@pytest.mark.parametrize(
    "line",
    [
        '<script src="https://unpkg.com/mermaid"></script>',
        '<link rel="stylesheet" href="//fonts.example.org/a.css">',
        '<img srcset="http://example.org/a.png 2x">',
        '<style>@font-face {src: url("https://example.org/a.woff2")}</style>',
    ],
)
def test_a_file_of_another_host_is_found(tmp_path: Path, line: str) -> None:
    page = tmp_path / "page.html"
    page.write_text(f'<a href="https://example.org">linked</a>{line}', "utf-8")
    assert len(_find_foreign(page)) == 1


@pytest.fixture
def address(site: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_diagrams_are_drawn_without_another_host(site: Path, address: str, browser: Any) -> None:
    drawn = [page for page in site.rglob("*.html") if '<pre class="mermaid">' in page.read_text("utf-8")]
    assert {page.parent for page in drawn} >= {site, site / "concepts"}
    view = browser.new_page()
    requests: list[str] = []
    faults: list[str] = []
    view.on("request", lambda request: requests.append(request.url))
    view.on("pageerror", lambda error: faults.append(str(error)))
    for page in drawn:
        count = page.read_text("utf-8").count('<pre class="mermaid">')
        view.goto(f"{address}/{page.relative_to(site).as_posix()}")
        # The theme puts what was drawn into a closed shadow tree of an element of this class.
        view.wait_for_function(f"document.querySelectorAll('div.mermaid').length === {count}", timeout=60_000)
    # GitHub alone shows these.
    for text in re.findall(
        r"```mermaid\n(.*?)```", (PROJECT / "CONTRIBUTING.md").read_text("utf-8"), re.DOTALL
    ):
        view.evaluate("text => mermaid.parse(text)", text)
    view.close()
    assert faults == []
    assert [url for url in requests if not url.startswith((f"{address}/", "data:", "blob:"))] == []
