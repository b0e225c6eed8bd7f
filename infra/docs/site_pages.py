"""mkdocs' hooks: README.md is the first page, and what is not on the site is named instead of linked."""

import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.structure.files import File, Files

PROJECT = Path(__file__).parents[2]
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")
_FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)


def on_files(files: Files, config: Any) -> Files:
    """Add the project's README as the first page, and pages that the navigation does not name at its end."""
    text = (PROJECT / "README.md").read_text("utf-8")
    files.append(File.generated(config, "index.md", content=text.replace("](docs/", "](")))
    style = (PROJECT / "infra" / "docs" / "site.css").read_text("utf-8")
    files.append(File.generated(config, "assets/site.css", content=style))
    named = set(_list_pages(config.nav))
    others = [file.src_uri for file in files.documentation_pages() if file.src_uri not in named]
    if others:
        config.nav.append({"More": sorted(others)})
    return files


def on_page_markdown(markdown: str, page: Any, files: Files, **_: Any) -> str:
    """Name what is in the project but not on the site, once on each page: a reader finds it there."""
    named = set()

    def name(found: re.Match[str]) -> str:
        text, address, anchor = found[1], found[2], found[3] or ""
        if "://" in address or address.startswith("mailto:"):
            return found[0]
        place = _resolve(page.file.src_uri, address)
        if files.get_file_from_path(place) is not None:
            return found[0]
        root = PROJECT if page.file.src_uri == "index.md" else PROJECT / "docs"
        known = Path(os.path.normpath(root / place))
        if not known.exists() or not known.is_relative_to(PROJECT):
            return found[0]
        inside = known.relative_to(PROJECT)
        if str(inside) == "README.md":
            return f"[{text}](index.md{anchor})"
        if text == str(inside) or inside in named:
            return text
        named.add(inside)
        return f"{text} (`{inside}`)"

    return _outside_of_code(markdown, lambda part: _LINK.sub(name, part))


def _list_pages(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    children = nav.values() if isinstance(nav, dict) else nav or ()
    return [page for child in children for page in _list_pages(child)]


def _resolve(page: str, address: str) -> str:
    parts: list[str] = []
    for part in (PurePosixPath(page).parent / address).parts:
        if part == ".." and parts and parts[-1] != "..":
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)


def _outside_of_code(markdown: str, change: Any) -> str:
    pieces: list[str] = []
    start = 0
    for fence in _FENCE.finditer(markdown):
        pieces += [change(markdown[start : fence.start()]), fence[0]]
        start = fence.end()
    return "".join([*pieces, change(markdown[start:])])
