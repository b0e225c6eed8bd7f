"""An MLflow model that is an adapter folder, loadable with plain ``mlflow.pyfunc``, without a pickle.

The adapter's files lie at the model's root, where PEFT and servers that read PEFT's layout find them;
MLflow's own files lie beside. The base is not in it: the machine that loads the model finds the base by the
manifest, or by ``model_config={"base_model": ...}``, and hashes it in full.
"""

import functools
import json
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorry_components.inference.loading import LoadedAdapter, load_adapter
from lorry_components.models.bases import resolve_base
from lorry_components.process_setup import hush_libraries
from lorry_components.task_types import TASK_TYPES
from lorry_registry.errors import AdapterRejectedError, LorryError, UsageError
from lorry_registry.manifest import MANIFEST_NAME, Manifest
from lorry_registry.mlflow_index import MlflowIndex
from lorry_registry.mlflow_loading import check_loaded
from lorry_registry.mlflow_network import BRIEF
from lorry_registry.registry import Registry
from lorry_registry.settings import Settings
from lorry_registry.signing import Trust
from lorry_registry.signing.adapter_signatures import COMPANION_FOLDERS
from lorry_registry.signing.attestations import FolderSignatures, Signatures, StoredSignatures
from lorry_registry.stores import open_store
from lorry_registry.whole_files import write_whole_text

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.models import Model

FLAVOR_NAME = "lorry"
# MLflow writes into it which version of which registered model it has downloaded.
_REGISTERED = "registered_model_meta"
_MLFLOW_FILES = frozenset({"MLmodel", "requirements.txt", "conda.yaml", "python_env.yaml", _REGISTERED})
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
    extras = "train,images" if "diffusers" in manifest.libraries else "train"
    requirements = [f"lorry[{extras}]=={manifest.libraries['lorry']}"]
    requirements += [
        f"{name}=={manifest.libraries[name].partition('+')[0]}"
        for name in _PACKAGES
        if name in manifest.libraries
    ]
    write_whole_text(folder / "requirements.txt", "\n".join(requirements) + "\n")
    model.signature = build_signature(manifest)
    model.add_flavor(
        FLAVOR_NAME, adapter_id=manifest.adapter_id, task=manifest.task, base=manifest.base.model, data="."
    )
    pyfunc.add_to_model(model, loader_module=__name__, model_config={"base_model": None})
    model.save(str(folder / "MLmodel"))


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
            beside=_MLFLOW_FILES | COMPANION_FOLDERS,
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
    import yaml

    path = folder / _REGISTERED
    if not path.is_file():
        return "", frozenset()
    document = yaml.safe_load(path.read_text("utf-8"))
    name, number = str(document["model_name"]), str(document["model_version"])
    # Without an address, MLflow would make a database of its own here.
    if not mlflow.tracking.is_tracking_uri_set():  # type: ignore[no-untyped-call]
        return name, frozenset()
    try:
        versions = MlflowIndex(mlflow.get_registry_uri(), patience=BRIEF).read_alias_versions(name)
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
            model_input: Texts as a list, a series or a frame of one column; for pairs a frame or records
                with the columns ``text`` and ``text_pair``.
            params: Ignored: there are none.

        Raises:
            UsageError: The input lacks columns that the task needs.
        """
        import pandas as pd

        has_pair = "text_pair" in self._loaded.manifest.probe.rows[0]
        rows = _read_rows(model_input, has_pair=has_pair)
        predictions = self._loaded.predictor.predict(rows)
        # Nested values would not survive a server's JSON as columns of their own.
        return pd.DataFrame(
            [
                {
                    key: json.dumps(value) if isinstance(value, dict | list) else value
                    for key, value in prediction.items()
                }
                for prediction in predictions
            ]
        )


def _read_rows(model_input: Any, *, has_pair: bool) -> list[dict[str, str]]:
    import pandas as pd

    if isinstance(model_input, str):
        model_input = [model_input]
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
    return [{name: str(row[name]) for name in needed} for row in frame.to_dict("records")]


def build_signature(manifest: Manifest) -> Any:
    """Return MLflow's signature of an adapter: what goes in, and what comes out."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    if "text_pair" in manifest.probe.rows[0]:
        inputs = Schema([ColSpec(DataType.string, "text"), ColSpec(DataType.string, "text_pair")])
    else:
        inputs = Schema([ColSpec(DataType.string)])
    task_type = TASK_TYPES.get(manifest.kind)
    fields = task_type.prediction_fields if task_type is not None else {}
    outputs = Schema([ColSpec(DataType[kind], name) for name, kind in fields.items()]) if fields else None
    return ModelSignature(inputs=inputs, outputs=outputs)
