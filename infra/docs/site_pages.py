"""mkdocs' hooks: README.md and the lab book are pages, too; what is not on the site is named, not linked."""

import os
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.structure.files import File, Files

PROJECT = Path(__file__).parents[2]
# Pages from elsewhere than docs/, by their places on the site.
_ORIGINS = {"index.md": "README.md", "lab-book.md": "tests/benchmarks/lab-book.md"}
_LAB_BOOK_IMAGES = "tests/benchmarks/images"
_STYLE = "infra/docs/site.css"
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")
_FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)


def on_files(files: Files, config: Any) -> Files:
    """Add pages from elsewhere with their images, the style, and what the navigation does not name."""
    for place, origin in _ORIGINS.items():
        files.append(File.generated(config, place, content=(PROJECT / origin).read_text("utf-8")))
    for image in sorted((PROJECT / _LAB_BOOK_IMAGES).glob("*.png")):
        files.append(File.generated(config, f"images/{image.name}", content=image.read_bytes()))
    files.append(File.generated(config, "assets/site.css", content=(PROJECT / _STYLE).read_text("utf-8")))
    named = set(_list_pages(config.nav))
    others = [file.src_uri for file in files.documentation_pages() if file.src_uri not in named]
    if others:
        config.nav.append({"More": sorted(others)})
    return files


def on_page_markdown(markdown: str, page: Any, files: Files, **_: Any) -> str:
    """Link pages of the site, and name what is in the project alone, once on each page."""
    folder = PurePosixPath(_ORIGINS.get(page.file.src_uri, f"docs/{page.file.src_uri}")).parent
    places = {origin: place for place, origin in _ORIGINS.items()}
    named = set()

    def rewrite(found: re.Match[str]) -> str:
        text, address, anchor = found[1], found[2], found[3] or ""
        if "://" in address or address.startswith("mailto:"):
            return found[0]
        target = os.path.normpath(folder / address)
        place = places.get(target, target.removeprefix("docs/"))
        if files.get_file_from_path(place) is not None:
            return f"[{text}]({place}{anchor})"
        # A link that leads nowhere is left for mkdocs to refuse.
        if target.startswith("..") or not (PROJECT / target).exists():
            return found[0]
        if text == target or target in named:
            return text
        named.add(target)
        return f"{text} (`{target}`)"

    return _outside_of_code(markdown, lambda part: _LINK.sub(rewrite, part))


def _list_pages(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    children = nav.values() if isinstance(nav, dict) else nav or ()
    return [page for child in children for page in _list_pages(child)]


def _outside_of_code(markdown: str, change: Callable[[str], str]) -> str:
    pieces: list[str] = []
    start = 0
    for fence in _FENCE.finditer(markdown):
        pieces += [change(markdown[start : fence.start()]), fence[0]]
        start = fence.end()
    return "".join([*pieces, change(markdown[start:])])
