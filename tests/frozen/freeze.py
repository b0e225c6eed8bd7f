"""Freeze adapters and ledgers in this format as test data, for every later version to read.

When the number of the format (docs/format.md) was raised::

    python tests/frozen/freeze.py

It writes ``tests/frozen/<format>/``, which is committed as it is and never changed again:
``test_frozen_adapters.py`` loads what is there in each format. A format that was frozen already is only
written anew with ``--force``, which is for one that was not released. It takes some minutes.

``--compare`` trains all adapters again and compares their ids with the frozen ones: on the machine and with
the libraries that these were made with, the same training gives the same bytes. A change of the code that is
to change nothing is seen to do so.

What is written::

    frozen_bases_<format>/<base>/      tiny bases, which adapters name package:...
    data/                              what the tasks are learned from
    adapters/<task>-v<number>/         task.yaml, and expected.json: digests, input rows, what is predicted
    store/                             adapters and ledgers, written by the steps themselves
    ledger.json                        what a reader of the store finds

Nothing in it tells where or by whom it was made.
"""

import getpass
import json
import os
import re
import shutil
import socket
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import torch
import yaml
from tiny_bases import save_bases
from tiny_data import add_photograph, write_data
from tiny_tasks import HISTORY, Plan, list_tasks
from transformers.utils import logging as transformers_logging

from lorry_components.inference import load_adapter
from lorry_components.steps.evaluate.step import evaluate
from lorry_components.steps.finetune.step import finetune
from lorry_components.steps.gate.step import decide
from lorry_components.steps.prepare_data.step import prepare_data
from lorry_components.steps.register.step import register
from lorry_components.tasks.definition import load_task_file
from lorry_components.tasks.resolution import resolve_task
from lorry_registry.ledger.events import Event
from lorry_registry.manifest import FORMAT
from lorry_registry.registry import Registry
from lorry_registry.stores import LocalStore

HERE = Path(__file__).parent
# Who is named in the ledger.
USER = "somebody"
# What a store keeps for itself while it is written.
_SCRATCH = shutil.ignore_patterns(".lock", ".scratch")
_IMAGES = "image-generation"
# A hundred times what the test tolerates: it is to see an adapter that is not there.
_LEAST_EFFECT = 0.01


@click.command()
@click.option("--force", is_flag=True, help="Write a format anew that was frozen already.")
@click.option("--compare", is_flag=True, help="Write nothing; say which adapters come out otherwise.")
def main(*, force: bool, compare: bool) -> None:
    """Freeze adapters and ledgers in the present format."""
    target = HERE / str(FORMAT)
    if target.exists() and not (force or compare):
        raise click.ClickException(
            f"format {FORMAT} was frozen already, and what was released must stay as it is; raise the "
            "number, or give --force if it was not released"
        )
    own_names = [getpass.getuser(), socket.gethostname()]
    os.environ["LOGNAME"] = USER
    _calm_libraries()
    with tempfile.TemporaryDirectory(prefix="lorry-freeze-") as scratch:
        frozen = Path(scratch) / "frozen"
        Freezer(frozen, Path(scratch) / "work").freeze()
        own_paths = [str(path) for path in (scratch, HERE.parents[1], Path.home()) if path != Path("/")]
        traces = list(find_traces(frozen, own_paths, own_names))
        if traces:
            raise click.ClickException("it would tell where it was made: " + "; ".join(traces))
        if compare:
            changes = list(list_changes(frozen, target))
            click.echo("\n".join(changes) or "all adapters are the same, byte for byte")
            sys.exit(bool(changes))
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(frozen, target, ignore=_SCRATCH)
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    click.echo(f"{target.name}: {size / 1024:.0f} KiB")


def _calm_libraries() -> None:
    torch.set_num_threads(1)
    chatter: Any = transformers_logging
    chatter.set_verbosity_error()
    chatter.disable_progress_bar()
    # peft asks transformers for a flag under its old name.
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)


class Freezer:
    """Makes the frozen data.

    Args:
        folder: A new folder, which it writes.
        work: Another one for what steps leave to one another.
    """

    def __init__(self, folder: Path, work: Path) -> None:
        self._folder = folder
        self._work = work
        # With the format in its name, so that a process can know the bases of several.
        self._bases = f"frozen_bases_{FORMAT}"
        self._registry = Registry(LocalStore(folder / "store"), work / "cache")

    def freeze(self) -> None:
        """Train, register and ask all adapters, and write down what they say."""
        save_bases(self._folder / self._bases)
        write_data(self._folder / "data")
        sys.path.insert(0, str(self._folder))
        for plan in list_tasks():
            self._freeze_adapter(plan)
        self._registry.promote(HISTORY, 3, reason="to try it")
        self._registry.rollback(HISTORY, reason="it is worse")
        champions = [event.champion_after for event in self._registry.ledger.read_history(HISTORY)]
        if champions != [1, 2, 2, 3, 2]:
            raise click.ClickException(f"{HISTORY} has another history than was meant: {champions}")
        _write_json(self._folder / "ledger.json", self._describe_ledger())

    def _freeze_adapter(self, plan: Plan) -> None:
        task = plan.document["name"]
        number = len(self._registry.list_versions(task)) + 1
        folder = self._folder / "adapters" / f"{task}-v{number}"
        folder.mkdir(parents=True)
        path = folder / "task.yaml"
        path.write_text(
            yaml.safe_dump(self._place(plan.document), sort_keys=False, allow_unicode=True), "utf-8"
        )
        event = self._run_steps(path)
        click.echo(f"{task} v{event.version}: {'; '.join(event.reasons)}")
        rows = plan.rows
        if plan.document["kind"] == _IMAGES:
            rows = add_photograph(rows, self._folder / "data")
        _write_json(folder / "expected.json", self._ask(event, rows))

    def _place(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """Return a task file whose base and source are where they lie beside it."""
        return {
            **document,
            "base": {"model": f"package:{self._bases}/{document['base']['model']}"},
            "data": {**document["data"], "source": f"../../data/{document['data']['source']}"},
        }

    def _run_steps(self, path: Path) -> Event:
        task = resolve_task(load_task_file(path))
        work = self._work / path.parent.name
        data, candidate = work / "data", work / "candidate"
        card = prepare_data(task, data)
        finetune(task, data, candidate, checkpoints=work / "checkpoints")
        report = evaluate(task, data, candidate, work / "evaluation", registry=self._registry)
        return register(
            task,
            candidate,
            report,
            decide(task.spec.gate, report),
            registry=self._registry,
            index=None,
            card=card,
            details={"run": f"freeze-{FORMAT}"},
        ).event

    def _ask(self, event: Event, rows: Sequence[Mapping[str, str]]) -> dict[str, Any]:
        """Load an adapter as everybody does, and return what it is and says."""
        folder = self._registry.fetch(event.adapter_id)
        loaded = load_adapter(folder, expected_id=event.adapter_id)
        manifest, predictor = loaded.manifest, loaded.predictor
        outputs, base_outputs = predictor.compute_outputs(rows), predictor.compute_base_outputs(rows)
        effect = float(abs(outputs - base_outputs).max())
        if effect < _LEAST_EFFECT:
            raise click.ClickException(f"{manifest.task} changes its base by no more than {effect:.2g}")
        return {
            "task": manifest.task,
            "version": event.version,
            "kind": manifest.kind,
            "method": manifest.method,
            "adapter_id": event.adapter_id,
            "base_fingerprint": manifest.base.fingerprint,
            "source_digest": manifest.inputs.source_digest,
            "data_digest": manifest.inputs.data_digest,
            "recipe_digest": manifest.inputs.recipe_digest,
            "rows": rows,
            "predictions": round_numbers(predictor.predict(rows)),
            "outputs": round_numbers(outputs.tolist()),
            "base_outputs": round_numbers(base_outputs.tolist()),
        }

    def _describe_ledger(self) -> dict[str, Any]:
        registry = self._registry
        return {
            entry.task: {
                "champion": entry.champion and entry.champion.model_dump(mode="json"),
                "versions": {
                    str(version.number): version.adapter_id for version in registry.list_versions(entry.task)
                },
                "events": [
                    {**event.model_dump(mode="json"), "digest": event.digest}
                    for event in registry.ledger.read_history(entry.task)
                ],
            }
            for entry in registry.list_tasks()
        }


def round_numbers(value: Any) -> Any:
    """Return a JSON document with six significant digits of each number."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, list):
        return [round_numbers(item) for item in value]
    if isinstance(value, dict):
        return {name: round_numbers(item) for name, item in value.items()}
    return value


def list_changes(folder: Path, target: Path) -> Iterator[str]:
    """Say which adapters differ from those that were frozen, by their ids."""
    made, frozen = _list_ids(folder), _list_ids(target)
    for name in sorted({*made, *frozen}):
        if made.get(name) != frozen.get(name):
            yield f"{name} is {made.get(name)}, and was {frozen.get(name)}"


def _list_ids(folder: Path) -> dict[str, str]:
    return {
        path.parent.name: json.loads(path.read_text("utf-8"))["adapter_id"]
        for path in folder.glob("adapters/*/expected.json")
    }


def find_traces(folder: Path, paths: Sequence[str], names: Sequence[str]) -> Iterator[str]:
    """Say which files hold a path of this machine, or, where users are named, one of its names as a word."""
    words = re.compile(rb"\b(" + b"|".join(re.escape(name.encode()) for name in names) + rb")\b")
    for path in sorted(found for found in folder.rglob("*") if found.is_file()):
        content, shown = path.read_bytes(), path.relative_to(folder).as_posix()
        told = [text for text in paths if text.encode() in content]
        # Elsewhere a user's name may well be a word, such as test.
        if shown.startswith(("store/tasks/", "ledger.json")):
            told += [found.decode() for found in words.findall(content)]
        if told:
            yield f"{shown} holds {', '.join(sorted({*told}))}"


def _write_json(path: Path, document: Any) -> None:
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
