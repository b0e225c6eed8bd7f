"""The data of a run, as MLflow shows it: which rows, from where, how many, with which digest."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lorry_registry.files.digests import shorten_digest
from lorry_registry.text.addresses import hide_secrets

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

# MLflow's pages show what stands under this tag beside the data set's name.
_CONTEXT_TAG = "mlflow.data.context"
_HUB, _S3 = "hub:", "s3://"


@dataclass(frozen=True, slots=True)
class RunDataset:
    """One part of the data of a run.

    Attributes:
        name: What MLflow calls it.
        part: What it was used for: ``train``, ``validation``, ``test``.
        source: The name of a file, or an address; a secret in it is not shown.
        digest: ``sha256:<hex>`` of its rows.
        rows: How many there are.
        columns: Column -> MLflow's name of its type.
        profile: What else there is to know.
    """

    name: str
    part: str
    source: str
    digest: str
    rows: int
    columns: Mapping[str, str]
    profile: Mapping[str, Any] = field(default_factory=dict)

    def build_input(self) -> "DatasetInput":
        """Return it as an entity of MLflow's."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        kind, source = _describe_source(self.source)
        schema = [{"name": name, "type": type_} for name, type_ in self.columns.items()]
        profile = {"num_rows": self.rows, "sha256": self.digest, **self.profile}
        return DatasetInput(
            Dataset(
                name=self.name,
                # Some 36 characters are all that MLflow takes; the whole digest is in the profile.
                digest=shorten_digest(self.digest),
                source_type=kind,
                source=json.dumps(source),
                schema=json.dumps({"mlflow_colspec": schema}),
                profile=json.dumps(profile),
            ),
            [InputTag(_CONTEXT_TAG, self.part)],
        )


def _describe_source(address: str) -> tuple[str, dict[str, str]]:
    shown = hide_secrets(address)
    if shown.startswith(_HUB):
        return "hugging_face", {"path": shown.removeprefix(_HUB)}
    return "s3" if shown.startswith(_S3) else "local", {"uri": shown}
