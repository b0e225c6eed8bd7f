"""README.md and docs/: each console block is run or says why not, each command exists, each link leads on."""

import re
from pathlib import Path

import click
import pytest

from lorry_pipelines.cli import lorry

from fixtures.doc_blocks import PROJECT, Block, list_pages, read_blocks

BLOCKS = read_blocks()
# Those that tests/e2e/local/test_docs.py runs.
RUN = {
    *(f"docs/{name}.md" for name in ("mlflow", "peft", "predict", "registry", "registry-upkeep", "signing")),
    "docs/task-file.md",
    "README.md",
}
_FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)


def _name(block: Block) -> str:
    return f"{block.page}:{block.line}"


@pytest.mark.parametrize("block", BLOCKS, ids=_name)
def test_a_console_block_is_run_or_says_why_not(block: Block) -> None:
    assert block.reason or block.page in RUN, "let tests/e2e/local/test_docs.py run it, or mark it"


@pytest.mark.parametrize("block", [block for block in BLOCKS if "lorry " in block.script], ids=_name)
def test_the_commands_of_a_block_exist_with_their_options(block: Block) -> None:
    for arguments in block.list_commands():
        # Such as `lorry …`, which stands for any command.
        if arguments and arguments[0] == "…":
            continue
        _parse(lorry, "lorry", arguments)


def test_an_option_that_is_not_there_is_found() -> None:
    block = Block("page", 1, "console", "$ lorry predict reviews --fil x\nfile\n", "")
    with pytest.raises(click.UsageError, match="--fil"):
        _parse(lorry, "lorry", next(block.list_commands()))
    commands = "LORRY_BASES=./b lorry bases list | head -1; lorry gc --apply  # all\n"
    assert list(Block("page", 1, "sh", commands, "").list_commands()) == [
        ["bases", "list"],
        ["gc", "--apply"],
    ]


def _parse(
    command: click.Command, name: str, arguments: list[str], parent: click.Context | None = None
) -> None:
    if isinstance(command, click.Group) and arguments and not arguments[0].startswith("-"):
        with click.Context(command, info_name=name, parent=parent) as ctx:
            below = command.get_command(ctx, arguments[0])
            assert below is not None, f"there is no command {arguments[0]!r}"
            _parse(below, arguments[0], arguments[1:], ctx)
        return
    with command.make_context(name, list(arguments), parent=parent):
        pass


@pytest.mark.parametrize("page", list_pages(), ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = _FENCE.sub("", page.read_text("utf-8"))
    lost = []
    for address in _LINK.findall(text):
        if "://" in address or address.startswith("mailto:"):
            continue
        place, _, anchor = address.partition("#")
        target = (page.parent / place).resolve() if place else page
        if (
            not target.is_relative_to(PROJECT)
            or not target.exists()
            or (anchor and target.suffix == ".md" and anchor not in _list_anchors(target))
        ):
            lost.append(address)
    assert lost == []


def _list_anchors(page: Path) -> set[str]:
    text = _FENCE.sub("", page.read_text("utf-8"))
    return {
        re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).replace(" ", "-")
        for heading in _HEADING.findall(text)
    }


def test_every_page_is_reached_from_another() -> None:
    linked = {
        (page.parent / address.partition("#")[0]).resolve()
        for page in list_pages()
        for address in _LINK.findall(_FENCE.sub("", page.read_text("utf-8")))
    }
    pages = set((PROJECT / "docs").glob("*.md"))
    assert {page.name for page in pages - linked} == set()


def test_the_readme_is_read_in_some_minutes_and_names_installing_before_a_table_of_ones_own() -> None:
    text = (PROJECT / "README.md").read_text("utf-8")
    assert len(text.split()) <= 900
    assert text.index("## Install") < text.index("## A table of your own")
