"""An MLflow model that is an adapter folder, loadable with plain ``mlflow.pyfunc``, without a pickle.

The adapter's files lie at the model's root, where PEFT and servers that read PEFT's layout find them;
MLflow's own files lie beside. The base is not in it: the machine that loads the model finds the base by the
manifest, or by ``model_config={"base_model": ...}``, and hashes it in full.
"""

import functools
import importlib.metadata
import json
import logging
import os
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from lorry_components.data.examples import find_text_fault
from lorry_components.inference.loading import LoadedAdapter, load_adapter
from lorry_components.models.bases import resolve_base
from lorry_components.process_setup import hush_libraries
from lorry_components.task_types import TASK_TYPES
from lorry_registry.errors import AdapterRejectedError, LorryError, UsageError
from lorry_registry.files.atomic_write import write_whole_text
from lorry_registry.manifest import MANIFEST_NAME, Manifest
from lorry_registry.mlflow.flavor_loading import check_loaded
from lorry_registry.mlflow.index import MlflowIndex
from lorry_registry.mlflow.network import BRIEF
from lorry_registry.registry import Registry
from lorry_registry.settings import Settings
from lorry_registry.signing import Trust
from lorry_registry.signing.adapter_signatures import SIDECAR_FOLDERS
from lorry_registry.signing.attestations import FolderSignatures, Signatures, StoredSignatures
from lorry_registry.stores import open_store
from lorry_registry.text.addresses import has_secret

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.models import Model

FLAVOR_NAME = "lorry"
# MLflow writes into it which version of which registered model it has downloaded.
_REGISTERED = "registered_model_meta"
_REQUIREMENTS, _CONDA, _PYTHON = "requirements.txt", "conda.yaml", "python_env.yaml"
_MLFLOW_FILES = frozenset({"MLmodel", _REQUIREMENTS, _CONDA, _PYTHON, _REGISTERED})
# How many faulty texts are listed.
_MOST_FAULTS = 10
_LOGGER = logging.getLogger(__name__)
_PACKAGES = ("torch", "transformers", "peft", "tokenizers", "safetensors", "diffusers")


def write_model(folder: Path, *, adapter: Path, manifest: Manifest, model: "Model") -> None:
    """Write an MLflow model folder.

    Args:
        folder: A new folder.
        adapter: The adapter's folder, with its manifest.
        manifest: The adapter's identity.
        model: MLflow's model document, which is completed here.
    """
    from mlflow import pyfunc

    folder.mkdir(parents=True)
    for name in [*(entry.name for entry in manifest.files), MANIFEST_NAME]:
        shutil.copyfile(adapter / name, folder / name)
    _write_environment(folder, manifest)
    model.signature = build_signature(manifest)
    model.add_flavor(
        FLAVOR_NAME, adapter_id=manifest.adapter_id, task=manifest.task, base=manifest.base.model, data="."
    )
    pyfunc.add_to_model(
        model,
        loader_module=__name__,
        conda_env=_CONDA,
        python_env=_PYTHON,
        model_config={"base_model": None},
    )
    model.save(str(folder / "MLmodel"))


def _write_environment(folder: Path, manifest: Manifest) -> None:
    """Write what MLflow makes an environment from: the libraries that the adapter was trained with."""
    extras = "train,images" if "diffusers" in manifest.libraries else "train"
    version = manifest.libraries["lorry"]
    wheel = f"lorry-{version}-py3-none-any.whl"
    address = _find_wheel(version)
    requirements = [
        *(
            [f"lorry[{extras}] @ {address}"]
            if address
            else [
                "# Where no package index has lorry, an environment is made in the checkout by two commands:",
                f"#   make dist && pip install 'dist/{wheel}[{extras}]'",
                f"lorry[{extras}]=={version}",
            ]
        ),
        *(
            f"{name}=={manifest.libraries[name].partition('+')[0]}"
            for name in _PACKAGES
            if name in manifest.libraries
        ),
    ]
    write_whole_text(folder / _REQUIREMENTS, "\n".join(requirements) + "\n")
    python, installed = platform.python_version(), f"-r {_REQUIREMENTS}"
    documents = {
        _PYTHON: {"python": python, "build_dependencies": ["pip"], "dependencies": [installed]},
        _CONDA: {
            "name": "lorry",
            "channels": ["conda-forge"],
            "dependencies": [f"python={python}", "pip", {"pip": [installed]}],
        },
    }
    for name, document in documents.items():
        write_whole_text(folder / name, yaml.safe_dump(document, sort_keys=False))


def _find_wheel(version: str) -> str:
    """Return the address of the wheel from which this version of Lorry was installed; "" if there is none."""
    try:
        distribution = importlib.metadata.distribution("lorry")
    except importlib.metadata.PackageNotFoundError:
        return ""
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    address = str(origin.get("url", ""))
    # A path of this machine means nothing on another, and a login belongs into no model.
    is_public = address.startswith("https://") and "archive_info" in origin and not has_secret(address)
    return address if is_public and distribution.version == version else ""


def _load_pyfunc(path: str, model_config: dict[str, Any] | None = None) -> "AdapterModel":
    """Load the model; MLflow calls this by name."""
    folder = Path(path)
    # MLflow passes no settings on: they are those of this process.
    settings = Settings.load(os.environ, Path.cwd())
    with hush_libraries():
        loaded = load_adapter(
            folder,
            # The files beside MLmodel may have been exchanged for another adapter's, all of them sound.
            expected_id=_read_adapter_id(folder),
            base_model=(model_config or {}).get("base_model"),
            beside=_MLFLOW_FILES | SIDECAR_FOLDERS,
            find_base=lambda spec: resolve_base(spec.find_in(settings.base_place)),
            judge=functools.partial(_judge, folder, settings),
        )
    return AdapterModel(loaded)


def _judge(folder: Path, settings: Settings, manifest: Manifest) -> None:
    """Judge an adapter by its signatures and by the ledger, as settings say.

    Signatures in the model's folder are looked at first; an adapter that was signed later has some in the
    store.

    Raises:
        AdapterRejectedError: Signatures are required, and none is trusted, or the ledger says otherwise.
    """
    where = f"{manifest.task} in {folder}"
    Trust(settings.signing).check_adapter(manifest, _find_signatures(folder, manifest, settings), where=where)
    if settings.signing.is_checking:
        model, aliases = _find_model(folder)
        check_loaded(Registry.open(settings), manifest, model=model, aliases=aliases, where=where)


def _find_model(folder: Path) -> tuple[str, frozenset[str]]:
    """Return the registered model that a folder was loaded as, and the aliases of its version."""
    import mlflow

    path = folder / _REGISTERED
    if not path.is_file():
        return "", frozenset()
    document = yaml.safe_load(path.read_text("utf-8"))
    name, number = str(document["model_name"]), str(document["model_version"])
    # Without an address, MLflow would make a database of its own here.
    if not mlflow.tracking.is_tracking_uri_set():  # type: ignore[no-untyped-call]
        return name, frozenset()
    try:
        versions = MlflowIndex(mlflow.get_registry_uri(), limits=BRIEF).read_alias_versions(name)
    except LorryError as error:
        _LOGGER.warning("by which alias %s was loaded is not known: %s", name, error)
        return name, frozenset()
    return name, frozenset(alias for alias, version in versions.items() if version == number)


def _find_signatures(folder: Path, manifest: Manifest, settings: Settings) -> Iterator[Signatures]:
    yield FolderSignatures(folder)
    yield StoredSignatures(open_store(settings.store, settings.s3), manifest.adapter_id)


def _read_adapter_id(folder: Path) -> str:
    from mlflow.models import Model

    adapter_id = Model.load(str(folder / "MLmodel")).flavors.get(FLAVOR_NAME, {}).get("adapter_id")
    if not isinstance(adapter_id, str):
        raise AdapterRejectedError(
            "its MLmodel does not say which adapter it is", where=str(folder), todo="run: lorry reconcile"
        )
    return adapter_id


class AdapterModel:
    """An adapter as ``mlflow.pyfunc`` calls it."""

    def __init__(self, loaded: LoadedAdapter) -> None:
        self._loaded = loaded

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> "pd.DataFrame":
        """Return one row a text, with the columns of the task type's predictions.

        Args:
            model_input: Texts as a list, a series or a frame of one column; or a frame, records or a mapping
                with the column ``text``, and for pairs ``text_pair``.
            params: Ignored: there are none.

        Raises:
            UsageError: The input lacks columns that the task needs, or has cells that are no texts.
        """
        import pandas as pd

        has_pair = "text_pair" in self._loaded.manifest.probe.rows[0]
        rows = _read_rows(model_input, has_pair=has_pair)
        return pd.DataFrame(self._loaded.predictor.predict(rows))


def _read_rows(model_input: Any, *, has_pair: bool) -> list[dict[str, str]]:
    import numpy as np
    import pandas as pd

    if isinstance(model_input, str):
        model_input = [model_input]
    if isinstance(model_input, Mapping):
        model_input = {name: np.atleast_1d(column) for name, column in model_input.items()}
    frame = model_input if isinstance(model_input, pd.DataFrame) else pd.DataFrame(model_input)
    needed: Sequence[str] = ("text", "text_pair") if has_pair else ("text",)
    if not has_pair and frame.shape[1] == 1:
        frame = frame.set_axis(["text"], axis=1)
    missing = [name for name in needed if name not in frame.columns]
    if missing:
        raise UsageError(
            f"the input has no column {' and no column '.join(missing)}",
            todo=f"give the columns {', '.join(needed)}",
        )
    rows = [{name: _open_cell(row[name]) for name in needed} for row in frame.to_dict("records")]
    faults = [
        f"row {number}: column {name!r} {fault}"
        for number, row in enumerate(rows, start=1)
        for name, cell in row.items()
        if (fault := find_text_fault(cell))
    ]
    if faults:
        more = f"; and {len(faults) - _MOST_FAULTS} more" if len(faults) > _MOST_FAULTS else ""
        raise UsageError("; ".join(faults[:_MOST_FAULTS]) + more, todo="give a text in each cell")
    return [{name: str(cell) for name, cell in row.items()} for row in rows]


def _open_cell(cell: Any) -> Any:
    """Return a cell; a server makes an array without dimensions of a text that stands for itself."""
    return cell.item() if getattr(cell, "shape", None) == () else cell


def build_signature(manifest: Manifest) -> Any:
    """Return MLflow's signature of an adapter: what goes in, and what comes out.

    Of a task about single texts it says only what comes out: MLflow would refuse either a list of texts or,
    as a server, a column of them. Where the fields of a prediction are not known, it says only what goes in.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import Map

    task_type = TASK_TYPES.get(manifest.kind)
    fields = task_type.prediction_fields if task_type is not None else {}
    outputs: Schema | None = None
    if fields:
        kinds = {
            name: Map(DataType.double) if kind == "map" else DataType[kind] for name, kind in fields.items()
        }
        outputs = Schema([ColSpec(kind, name) for name, kind in kinds.items()])
    if "text_pair" in manifest.probe.rows[0]:
        inputs = Schema([ColSpec(DataType.string, "text"), ColSpec(DataType.string, "text_pair")])
        return ModelSignature(inputs=inputs, outputs=outputs)
    return ModelSignature(inputs=None if outputs else Schema([ColSpec(DataType.string)]), outputs=outputs)
