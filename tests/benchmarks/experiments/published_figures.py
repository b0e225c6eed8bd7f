"""The papers' figures on trained parameters and memory, beside Lorry's.

    python tests/benchmarks/experiments/published_figures.py [--json]
    python tests/benchmarks/experiments/published_figures.py --study results.json

The figures are in ``published_figures.json``: the counts are those of Hu et al. 2021 (tables 2 and 3), of
PEFT's page on mt0-large, and of the code of P-tuning's authors; the peaks are those of PEFT's own tables
(RAFT twitter_complaints, and DreamBooth, on an A100 of 80 GB). Ours are counted on the real modules, on the
meta device, which takes half a minute. ``--study`` prints the published accuracies by rank or by targets
beside those of a ``results.json`` that ``lorry compare --grid r=...`` or ``--grid targets=...`` wrote.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorry_components.memory.activations import Activations, measure_activations, measure_pass
from lorry_components.memory.architecture import (
    AdaptedArchitecture,
    Architecture,
    adapt_architecture,
    build_architecture,
    build_configuration,
)
from lorry_components.memory.diffusion_pipeline import ImagePipeline, measure_unet, read_known_pipeline
from lorry_components.memory.estimates import Estimate, Recipe, estimate_training
from lorry_components.memory.gpus import DEVICES
from lorry_components.memory.plan import make_footprint
from lorry_components.methods import METHODS
from lorry_components.models.configuration import BaseConfiguration, read_known_configurations
from lorry_components.models.diffusers_models import build_diffusers_skeleton, has_diffusers
from lorry_registry.cli.prose import print_prose
from lorry_registry.cli.tables import NOTHING, Column, print_bullets, print_heading, print_table
from lorry_registry.manifest import ParameterCounts
from lorry_registry.text.sizes import GIB, format_in

FIGURES = Path(__file__).with_suffix(".json")
# PEFT's names for what these classes do.
TASK_TYPES = {
    "AutoModelForSequenceClassification": "SEQ_CLS",
    "AutoModelForCausalLM": "CAUSAL_LM",
    "AutoModelForSeq2SeqLM": "SEQ_2_SEQ_LM",
}
# The runs of the memory table: 8 rows cut to 64 tokens, and answers such as "no complaint" in 3.
ROWS, TOKENS, ANSWER_TOKENS = 8, 64, 3
PUBLISHED_DEVICE = next(device for device in DEVICES if device.name == "A100 80 GB")
# DreamBooth as the README of PEFT's example runs it: UNet and text encoder in fp32, one image of 512x512
# pixels a step and one of its class beside it (prior preservation), LoRA of rank 16 on queries and values.
IMAGES, IMAGE_RANK = 2, 16
UNET_TARGETS, TEXT_TARGETS = ["to_q", "to_v"], ["q_proj", "v_proj"]
Figures = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """A published figure and ours.

    Attributes:
        name: What was trained, on which base.
        method: The method's name in task files.
        trainable_parameters: Ours, without the head.
        total_parameters: Of the model with its head and the adapter.
        published: The published count as a number; None: this row is about memory.
        published_text: The figure as it is printed there.
        memory_gib: Ours by the formula, in GiB; None: this row is about parameters.
        memory_range_gib: Ours from low to high, with what the process and its allocator add.
        published_gib: The published peak; None: it ran out of memory, or none is published.
        difference: Ours over the published figure, less 1; None: there is none to compare with.
        agrees: Whether our count rounds to the printed one, our memory is within a tenth of it, or does not
            fit where the published run ran out of memory.
        reason: Why it differs, or what is compared; why it could not be planned.
        is_planned: Whether ours could be computed; if not, there are no figures of ours.
    """

    name: str
    method: str
    trainable_parameters: int = 0
    total_parameters: int = 0
    published: float | None = None
    published_text: str = ""
    memory_gib: float | None = None
    memory_range_gib: tuple[float, float] | None = None
    published_gib: float | None = None
    difference: float | None = None
    agrees: bool = False
    reason: str = ""
    is_planned: bool = True


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables, or the rows as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.add_argument("--study", type=Path, metavar="results.json", help="print a grid's published rows")
    chosen = parser.parse_args(arguments)
    figures = json.loads(FIGURES.read_text("utf-8"))
    if chosen.study is not None:
        print_study(figures["studies"], json.loads(chosen.study.read_text("utf-8")))
        return
    if not has_diffusers():
        figures["image_memory"] = []
        print(
            "the rows of Stable Diffusion are left out, because diffusers is not installed; install it with: "
            "pip install 'lorry[train,images]'",
            file=sys.stderr,
        )
    rows = list_published_rows(figures)
    if chosen.json:
        print(json.dumps([dataclasses.asdict(row) for row in rows], indent=2))
    else:
        print_rows(rows)


def list_published_rows(figures: Figures) -> list[PublishedRow]:
    """Compute the rows: those of the parameter tables first, then those of the memory tables.

    A row that fails, for example because a version of a library builds its model differently, says why and
    does not stop the others.
    """
    return [
        *(_try_row(_name(entry, entry["variant"]), count_row, entry) for entry in figures["counts"]),
        *(
            _try_row(
                _name(entry) + (", offload" if entry["is_offloaded"] else ""),
                measure_row,
                entry | {"reason": figures["offload_reason"] if entry["is_offloaded"] else ""},
            )
            for entry in figures["memory"]
        ),
        *(
            _try_row(
                _name(entry) + (", checkpointing" if entry["is_checkpointed"] else ""), measure_images, entry
            )
            for each in figures["image_memory"]
            for entry in [each | {"base": figures["pipeline"], "reason": figures["image_reason"]}]
        ),
    ]


def _name(entry: Figures, variant: str = "") -> str:
    return " ".join(filter(None, (entry["base"].rpartition("/")[2], entry["method"], variant)))


def _try_row(name: str, compute: Callable[[str, Figures], PublishedRow], entry: Figures) -> PublishedRow:
    try:
        return compute(name, entry)
    except Exception as error:  # noqa: BLE001 - the other rows are computed all the same
        message = str(error).partition("\n")[0]
        reason = f"not planned: {type(error).__name__}: {message}"
        return PublishedRow(name, entry["method"], reason=reason, is_planned=False)


def parse_count(text: str) -> tuple[float, float]:
    """Return the number that a paper prints, such as ``0.35M``, and half of its last digit's worth."""
    unit = {"M": 1e6, "B": 1e9}.get(text[-1:], 1.0)
    digits = text.rstrip("MB").replace(",", "")
    decimals = len(digits.partition(".")[2])
    return float(digits) * unit, 0.5 * unit / 10**decimals


def count_row(name: str, entry: Figures) -> PublishedRow:
    """Count what a row of the parameter tables trains, on its modules."""
    parameters = _adapt(entry, entry["options"]).parameters
    trained = parameters.adapter
    published, agrees, difference = None, True, None
    if entry["published"]:
        published, tolerance = parse_count(entry["published"])
        agrees = abs(trained - published) <= tolerance
        difference = trained / published - 1
    return PublishedRow(
        name,
        entry["method"],
        trained,
        parameters.total,
        published=published,
        published_text=entry["published"],
        difference=difference,
        agrees=agrees,
        reason=entry["reason"],
    )


def _adapt(entry: Figures, options: Mapping[str, Any], attention: str | None = None) -> AdaptedArchitecture:
    base = BaseConfiguration(read_known_configurations()[entry["base"]], entry["base"])
    architecture = build_architecture(
        base, build_configuration(base), entry["model_class"], attention=attention
    )
    return adapt_architecture(
        METHODS[entry["method"]](options, TASK_TYPES[entry["model_class"]]), architecture
    )


def measure_row(name: str, entry: Figures) -> PublishedRow:
    """Estimate the peak of a row of the memory table: eager attention and fp32, as these runs were."""
    options = {"r": 8} if entry["method"] == "lora" else {}
    adapted = _adapt(entry, options, attention="eager")
    task_type = TASK_TYPES[entry["model_class"]]
    activations = measure_activations(
        adapted.model,
        rows=ROWS,
        tokens=TOKENS,
        target_tokens=ANSWER_TOKENS if task_type == "SEQ_2_SEQ_LM" else None,
        on_cuda=True,
    )
    estimate = estimate_training(
        make_footprint(adapted, METHODS[entry["method"]](options, task_type), activations, ROWS),
        Recipe("cuda", "fp32", ROWS, is_offloaded=entry["is_offloaded"]),
    )
    return _describe_memory(name, entry, adapted.parameters, estimate)


def measure_images(name: str, entry: Figures) -> PublishedRow:
    """Estimate the peak of a published run of DreamBooth."""
    parameters, estimate = measure_dreambooth(
        read_known_pipeline(entry["base"]), entry["method"], is_checkpointed=entry["is_checkpointed"]
    )
    return _describe_memory(name, entry, parameters, estimate)


def measure_dreambooth(
    pipeline: ImagePipeline, method: str, *, is_checkpointed: bool
) -> tuple[ParameterCounts, Estimate]:
    """Count the trained parameters of UNet and text encoder, and estimate the peak of their training.

    Checkpointing computes the layers of the UNet again, and none of the text encoder's.
    """
    import torch
    from diffusers.models.attention_processor import AttnProcessor
    from transformers import CLIPTextConfig, CLIPTextModel

    unet: Any = build_diffusers_skeleton("UNet2DConditionModel", pipeline.parts["unet"])
    # Attention without fused kernels, as in PEFT's example.
    unet.set_attn_processor(AttnProcessor())
    with torch.device("meta"):
        configuration: Any = CLIPTextConfig
        text = CLIPTextModel(configuration(**pipeline.parts["text_encoder"], attn_implementation="eager"))
    adapted_unet = _adapt_part(method, unet, UNET_TARGETS)
    adapted_text = _adapt_part(method, text, TEXT_TARGETS)
    autoencoder = build_diffusers_skeleton("AutoencoderKL", pipeline.parts["vae"])
    counts = ParameterCounts(
        adapter=adapted_unet.parameters.adapter + adapted_text.parameters.adapter,
        head=0,
        total=adapted_unet.parameters.total
        + adapted_text.parameters.total
        + sum(parameter.numel() for parameter in autoencoder.parameters()),
    )
    of_unet = measure_unet(adapted_unet.model, pipeline, rows=IMAGES, on_cuda=True)
    tokens = torch.zeros((IMAGES, pipeline.positions), dtype=torch.long, device="meta")
    of_text: Activations = measure_pass(
        adapted_text.model, lambda: adapted_text.model(input_ids=tokens), on_cuda=True
    )
    both = dataclasses.replace(
        of_unet, kept=of_unet.kept + of_text.kept, outside=of_unet.outside + of_text.kept
    )
    footprint = make_footprint(
        dataclasses.replace(adapted_unet, parameters=counts), METHODS[method]({}), both, IMAGES
    )
    recipe = Recipe("cuda", "fp32", IMAGES, is_checkpointed=is_checkpointed)
    return counts, estimate_training(footprint, recipe)


def _adapt_part(method: str, model: Any, targets: list[str]) -> AdaptedArchitecture:
    options = {"r": IMAGE_RANK, "targets": targets} if method == "lora" else {}
    return adapt_architecture(METHODS[method](options), Architecture(model, frozenset()))


def _describe_memory(
    name: str, entry: Figures, parameters: ParameterCounts, estimate: Estimate
) -> PublishedRow:
    published: float | None = entry["published"]
    ours = estimate.formula / GIB
    device = PUBLISHED_DEVICE
    beyond = f"ours is above the {format_in(device.usable, 'GiB')} of an {device.name}"
    return PublishedRow(
        name,
        entry["method"],
        parameters.trained,
        parameters.total,
        published_text=f"{published:g} GB" if published else "out of memory",
        memory_gib=ours,
        memory_range_gib=(estimate.low / GIB, estimate.high / GIB),
        published_gib=published,
        difference=ours / published - 1 if published else None,
        agrees=abs(ours / published - 1) <= 0.1 if published else estimate.low > device.usable,
        reason=entry["reason"] if published else beyond,
    )


def print_rows(rows: Sequence[PublishedRow]) -> None:
    """Print the tables of parameters and of memory, the notes, and how many rows agree."""
    planned = [row for row in rows if row.is_planned]
    notes = list(dict.fromkeys(row.reason for row in planned if row.reason))
    print_heading("Trained parameters, without the head")
    ours = [Column("Base, method", wraps=True), Column("Ours", justify="right")]
    theirs = [Column(title, justify="right") for title in ("Published", "Differs", "Note")]
    print_table(
        [*ours, Column("Of all", justify="right", rank=3), *theirs],
        [
            [
                row.name,
                f"{row.trainable_parameters:,}",
                f"{row.trainable_parameters / row.total_parameters:.3%}",
                *_compare(row, notes),
            ]
            for row in planned
            if row.memory_gib is None
        ],
    )
    print_heading("Peak memory of training: fp32, 8 rows of 64 tokens, or two images")
    print_table(
        [
            ours[0],
            Column("Trained", justify="right", rank=2),
            ours[1],
            Column("Range", justify="right", rank=1),
            *theirs,
        ],
        [
            [
                row.name,
                f"{row.trainable_parameters:,}",
                f"{row.memory_gib:.1f} GiB",
                "{:.1f} to {:.1f} GiB".format(*row.memory_range_gib or (0.0, 0.0)),
                *_compare(row, notes),
            ]
            for row in planned
            if row.memory_gib is not None
        ],
    )
    print()
    for number, note in enumerate(notes, start=1):
        print_prose(f"  {number}  {note}", hanging="   ")
    failed = [row for row in rows if not row.is_planned]
    if failed:
        print_heading("Not planned")
        print_bullets(f"{row.name}: {row.reason.removeprefix('not planned: ')}" for row in failed)
    compared = [row for row in planned if row.published_text]
    print(
        f"\n{sum(row.agrees for row in compared)} of {len(compared)} agree with the published figures; the "
        "notes say why others differ\n(counts agree to the last printed digit, memory within a tenth)"
    )


def _compare(row: PublishedRow, notes: Sequence[str]) -> list[str]:
    differs = NOTHING
    if row.difference is not None:
        differs = "exact" if row.difference == 0 else f"{row.difference:+.1%}"
    return [row.published_text or NOTHING, differs, str(notes.index(row.reason) + 1) if row.reason else ""]


def print_study(studies: Figures, results: Figures) -> None:
    """Print the rows of a grid beside those of Hu et al. 2021, which are of another model and other data."""
    study = studies[next(name for name in results["grid"] if name in studies)]
    names = list(next(iter(study["rows"].values())))
    print_table(
        [
            Column("Grid"),
            Column(results["metric"], justify="right"),
            *(Column(f"GPT-3 {name}", justify="right") for name in names),
        ],
        [
            [
                row["label"],
                NOTHING if row["value"] is None else f"{row['value']:.3f}",
                *(
                    str(study["rows"].get(row["label"].partition("=")[2], {}).get(name, NOTHING))
                    for name in names
                ),
            ]
            for row in results["rows"]
        ],
    )
    print(f"published figures, of another model and other data: {study['source']}")


if __name__ == "__main__":
    main()
