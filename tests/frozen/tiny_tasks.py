"""The tasks of the frozen adapters: every method, every kind, and a history."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tiny_data import PROMPT, Document, list_tables

HISTORY = "reviews-over-time"
"""The task with several versions: see :func:`list_tasks`."""

_WORDING = "{text} is located in {label} ."

# Method -> its options on reviews.
_METHODS: Mapping[str, Document] = {
    "full": {},
    "ft-top": {"layers": 1},
    "bitfit": {},
    "adapter-h": {"size": 2},
    "adapter-p": {"reduction": 8},
    "adapter-l": {"size": 2, "activation": "gelu"},
    "adapter-d": {"size": 2},
    "prelayer": {"tokens": 3},
    "lora": {"r": 2},
    "qlora": {"r": 2, "targets": "all-linear"},
    "adalora": {"r": 4, "target_r": 2, "interval": 1},
    "vera": {"r": 8},
    "ia3": {},
    "prompt-tuning": {"tokens": 3},
    "p-tuning": {"tokens": 3},
    "p-tuning-v2": {"tokens": 3},
    "peft": {"type": "MISS", "r": 2},
}
# Name -> a method that is stored otherwise than with its usual options.
_VARIANTS: Mapping[str, Document] = {
    "lora-dora": {"name": "lora", "r": 2, "dora": True},
    "lora-pissa": {"name": "lora", "r": 2, "init": "pissa", "rslora": True, "targets": ["query", "value"]},
    "lora-layers": {"name": "lora", "r": 2, "alpha": 4.5, "layers": 1, "init": "gaussian"},
    "p-tuning-template": {"name": "p-tuning", "template": "[P]*2 {text} [P] it is", "encoder": "lstm"},
    "p-tuning-v2-projection": {"name": "p-tuning-v2", "tokens": 3, "projection": True, "hidden_size": 4},
}


@dataclass(frozen=True)
class Plan:
    """A training, and what its adapter is asked afterwards.

    Attributes:
        document: The task file; its base is the name of a tiny one, its source a name below the data.
        rows: Input rows.
    """

    document: Document
    rows: Sequence[Mapping[str, str]]


def list_texts() -> list[str]:
    """Return all texts of all tasks, each once, for bases that are to know their words."""
    tables = list_tables()
    cells = [cell for rows in tables.values() for row in rows for cell in row.values()]
    texts = [cell for cell in cells if isinstance(cell, str)]
    clozes = [_WORDING.format(text=row["subject"], label=row["object"]) for row in tables["towns.jsonl"]]
    asked = [text for plan in list_tasks() for row in plan.rows for text in row.values()]
    # What half of the towns are asked for is left to learn.
    return list(dict.fromkeys([*texts, *clozes[::2], *asked]))


def list_tasks() -> Iterator[Plan]:
    """Yield all trainings, in order; those of :data:`HISTORY` are versions of one task.

    Of these the first learns from labels that are all wrong, and is the champion for want of another; the
    second learns from the right ones and beats it, and the third no more than that, and is refused.
    """
    yield from _list_reviews()
    yield from _list_pairs()
    yield from _list_history()
    yield from _list_writing()
    yield from _list_probing()
    yield Plan(
        _describe(
            "questions-lora",
            "question-answering",
            "bert",
            data={
                "source": "questions.jsonl",
                "columns": {"text": "question", "text_pair": "context", "label": "answers"},
                "max_length": 28,
                "max_target": 4,
            },
            train={"steps": 120, "learning_rate": 1e-2},
        ),
        [
            {"text": f"when does the {place} open ?", "text_pair": text}
            for place, text in {
                "mill": "the mill opens at seven . the zoo opens at ten .",
                "zoo": "the bakery opens at six .",
                "station": f"{'the library opens at nine . ' * 4}the station opens at noon .",
            }.items()
        ],
    )
    yield Plan(
        _describe(
            "photographs-lora",
            "image-generation",
            "painter",
            data={
                "source": "photographs",
                "columns": {"text": "text", "label": "file_name"},
                "split": {"validation": 0.2, "test": 0.3, "seed": 0},
            },
            train={"steps": 6, "batch_size": 2, "learning_rate": 5e-3},
            generate={"steps": 3, "guidance": 3.0, "seed": 5},
        ),
        [{"text": f"{PROMPT} in the snow"}, {"text": "a cat"}],
    )


def _list_reviews() -> Iterator[Plan]:
    for name, options in _METHODS.items():
        yield _review(f"reviews-{name}", {"name": name, **options})
    for name, method in _VARIANTS.items():
        yield _review(f"reviews-{name}", method)
    unset = dict.fromkeys(("steps", "batch_size", "learning_rate"))
    yield _review("reviews-probe", {"name": "probe"}, train=unset)
    # No version of it is the champion.
    yield _review("reviews-refused", {"name": "lora", "r": 1}, gate={"minimum": 1.5})


def _list_history() -> Iterator[Plan]:
    method = {"name": "lora", "r": 4, "targets": ["query", "value"]}
    gate = {"minimum_gain": 0.01}
    for label, seed in (("draft", 0), ("label", 0), ("label", 3)):
        columns = {"text": "text", "label": label}
        yield _review(HISTORY, method, data={"columns": columns}, train={"seed": seed}, gate=gate)


def _review(name: str, method: Document, **sections: Document) -> Plan:
    data = {"source": "reviews.jsonl", "max_length": 24, **sections.pop("data", {})}
    document = _describe(name, "text-classification", "bert", data=data, method=method, **sections)
    rows = [
        {"text": "the film was great and so moving"},
        {"text": "the story is weak and boring"},
        {"text": "A dull plot, awful cast."},
        {"text": f"very bright {'and quite a story of it ' * 8}was poor"},
    ]
    return Plan(document, rows)


def _list_pairs() -> Iterator[Plan]:
    yield Plan(
        _describe(
            "pairs-lora",
            "text-classification",
            "bert",
            data={"source": "pairs.jsonl", "columns": {"text_pair": "text_pair"}, "max_length": 32},
            method={"name": "lora", "r": 2, "targets": "all-linear"},
        ),
        [
            {"text": "so good", "text_pair": "it was weak"},
            {"text": "the cast is superb", "text_pair": "a lovely plot"},
        ],
    )
    # Every section says something, so that the digest of a recipe with all of it is frozen.
    yield Plan(
        {
            **_describe(
                "likeness-lora",
                "regression",
                "bert",
                data={
                    "source": "likeness",
                    "columns": {"text": "first", "text_pair": "second", "label": "score"},
                    "splits": {"train": "train", "validation": "dev", "test": "test"},
                    "limit": {"train": 30, "seed": 2},
                    "duplicates": "keep",
                    "max_length": 20,
                },
                method={"name": "lora", "r": 2, "dropout": 0.1, "lora_plus_ratio": 4, "max_adapter_mib": 0.5},
                train={
                    "steps": None,
                    "epochs": 2,
                    "gradient_accumulation": 2,
                    "batch_size": 4,
                    "schedule": "cosine",
                    "warmup": 0.1,
                    "weight_decay": 0.01,
                    "max_grad_norm": 0.5,
                    "hidden_dropout": 0.05,
                    "gradient_checkpointing": True,
                    "seed": 7,
                    "early_stopping": {"patience": 1},
                },
                evaluate={
                    "metrics": ["spearman", "rmse"],
                    "primary": "spearman",
                    "reference": {"value": 0.5, "source": "nobody"},
                },
                gate={"minimum": -1.0, "minimum_gain": 0.01, "confidence": 0.9},
                resources={"accelerator": "nvidia.com/gpu", "count": 0, "memory": "2Gi"},
            ),
            "owner": "the tests",
            "description": "How like two lists of words are: jusqu'à 5, déjà vu.",
        },
        [
            {"text": "good and great", "text_pair": "great and good"},
            {"text": "lovely", "text_pair": "bright and moving and superb"},
        ],
    )


def _list_writing() -> Iterator[Plan]:
    data = {
        "source": "restaurants.jsonl",
        "columns": {"text": "mr", "label": "ref"},
        "max_length": 60,
        "max_target": 16,
    }
    rows = [
        {"text": "name[Aromi], food[Indian], area[centre]"},
        {"text": f"name[Zizzi], {'food[French], ' * 12}area[riverside]"},
    ]
    train = {"steps": 60, "learning_rate": 1e-2}
    wording = {"template": "Say {text} : {label}"}
    search = {"beams": 2, "length_penalty": 0.8, "no_repeat_ngram": 3, "chat": "never"}
    for method in ("lora", "prompt-tuning", "p-tuning-v2", "prelayer"):
        options = {"r": 4} if method == "lora" else {"tokens": 4}
        yield Plan(
            _describe(
                f"restaurants-gpt2-{method}",
                "text-generation",
                "gpt2",
                # One of them as a message to the base's chat template, and by the likeliest token each time.
                data={**data, "max_length": 56, **({} if method == "prelayer" else wording)},
                method={"name": method, **options},
                train=train,
                generate={} if method == "prelayer" else search,
            ),
            rows,
        )
    for method in ("lora", "prompt-tuning"):
        options = {"r": 4} if method == "lora" else {"tokens": 4}
        yield Plan(
            _describe(
                f"restaurants-t5-{method}",
                "text-to-text",
                "t5",
                data=data,
                method={"name": method, **options},
                train=train,
            ),
            rows,
        )


def _list_probing() -> Iterator[Plan]:
    soft = {"name": "p-tuning", "template": "[P]*2 {text} [P] is located in {label} ."}
    methods = {
        "bert-lora": {"name": "lora", "r": 2},
        "gpt2-lora": {"name": "lora", "r": 2},
        "bert-p-tuning": soft,
    }
    for name, method in methods.items():
        yield Plan(
            _describe(
                f"towns-{name}",
                "knowledge-probing",
                name.partition("-")[0],
                data={
                    "source": "towns.jsonl",
                    "columns": {"text": "subject", "label": "object"},
                    "template": _WORDING,
                    "max_length": 24,
                },
                method=method,
                train={"learning_rate": 1e-2},
            ),
            [{"text": "old riverton"}, {"text": f"{'great ' * 20}woodby"}],
        )


def _describe(name: str, kind: str, base: str, **sections: Document) -> Document:
    """Return a task file: what all have in common, under the sections that are given."""
    document: Document = {
        "name": name,
        "kind": kind,
        "base": {"model": base},
        "data": {"split": {"validation": 0.15, "test": 0.25, "seed": 1}},
        "method": {"name": "lora", "r": 2},
        "train": {"steps": 40, "batch_size": 8, "learning_rate": 3e-2, "precision": "fp32"},
        "evaluate": {"resamples": 100},
        # What is frozen is to be promoted, however little it has learned.
        "gate": {"minimum_rows": 1, "baseline": "none"},
    }
    for section, fields in sections.items():
        whole = fields if section == "method" else {**document.get(section, {}), **fields}
        document[section] = {field: value for field, value in whole.items() if value is not None}
    if "splits" in document["data"]:
        del document["data"]["split"]
    return {section: fields for section, fields in document.items() if fields}
