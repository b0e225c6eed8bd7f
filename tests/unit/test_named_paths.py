"""Paths in the text of this repository: each file that is named is there."""

import re
from collections.abc import Iterator
from pathlib import Path

PROJECT = next(folder for folder in Path(__file__).parents if (folder / "pyproject.toml").is_file())
FOLDERS = ("registry", "components", "pipelines", "infra", "tests", "docs")
READ = (".md", ".py", ".sh", ".toml", ".yaml", ".yml")
# Not after another folder: that is a path of something else.
_PATH = re.compile(rf"(?<![\w./-])(?:{'|'.join(FOLDERS)})/[\w./-]*\w\.(?:py|md|sh|ya?ml|json|toml|txt)\b")
# Files of packages that tests make up.
MADE_UP = {"tests/__init__.py"}


def list_files() -> Iterator[Path]:
    yield from (path for path in PROJECT.iterdir() if path.suffix in READ or path.name == "Makefile")
    for folder in FOLDERS:
        yield from (path for path in (PROJECT / folder).rglob("*") if path.suffix in READ and path.is_file())


def test_each_named_file_is_there() -> None:
    missing = {
        f"{path.relative_to(PROJECT)}: {name}"
        for path in list_files()
        for name in _PATH.findall(path.read_text("utf-8"))
        # NAME stands for any.
        if not (PROJECT / name).is_file() and name not in MADE_UP and "NAME" not in name
    }
    assert not missing
