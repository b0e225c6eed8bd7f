"""Methods: what is trained, what is saved, and that it comes back bit for bit."""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DebertaV2Config,
    GPT2Config,
    PreTrainedConfig,
    RobertaConfig,
)

from lorry_components.methods import METHODS, AdaptedModel, Method
from lorry_components.task_types import TASK_TYPES, InputForm, TaskType
from lorry_components.tasks.definition import check_sections
from lorry_registry.errors import AdapterRejectedError, Fault, TrainingError
from lorry_registry.manifest import CONFIG_NAME, WEIGHTS_NAME, BaseIdentity
from lorry_registry.tasks.task_sections import TaskSections
from lorry_registry.tasks.task_spec import MethodSpec

IDENTITY = BaseIdentity(
    model="package:somewhere/model", revision=None, fingerprint="sha256:" + "0" * 64, architecture="BertModel"
)
LABELS = {"regression": None, "classification": ["bad", "mixed", "good"], "pair": ["different", "same"]}
OPTIONS: dict[str, dict[str, Any]] = {
    "lora": {"r": 4, "targets": ["query", "value"]},
    "p-tuning": {"tokens": 4},
    "full": {},
}
OTHERS = {"peft": {"type": "MISS", "r": 2}}
TARGETS = {"gpt2": ["c_attn"], "distilbert": ["q_lin", "v_lin"]}
STYLES = ["bert", "bert-without-pooler", "roberta", "distilbert", "gpt2"]
FITTING = [(method, style) for method in OPTIONS for style in STYLES]


@dataclass
class Case:
    """A base with a method on it, and a batch of its task."""

    folder: Path
    task_type: TaskType
    labels: list[str] | None
    method: Method
    model: nn.Module
    newly_initialized: frozenset[str]
    batch: Mapping[str, torch.Tensor]
    targets: torch.Tensor

    def learn(self, steps: int = 3) -> "Case":
        """Take a few steps, so that everything that is trained changes."""
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=0.01)
        self.model.train()
        for _ in range(steps):
            optimizer.zero_grad()
            self.model(**self.batch, labels=self.targets).loss.backward()
            optimizer.step()
        self.model.eval()
        return self

    def save(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        self.method.save(self.model, folder, IDENTITY)
        return folder

    def restore(self, folder: Path, method: str | None = None) -> AdaptedModel:
        """Put a saved adapter on a base that is loaded anew, with other random numbers in its head."""
        torch.manual_seed(99)
        bare, newly_initialized = self.task_type.load_model(self.folder, self.labels)
        name = method or self.method.name
        return METHODS[name](OTHERS.get(name, {})).restore(bare, folder, newly_initialized)

    def compute(self, model: nn.Module | None = None) -> torch.Tensor:
        with torch.inference_mode():
            logits: torch.Tensor = (model or self.model)(**self.batch).logits
        return logits

    def check_same(self, folder: Path) -> None:
        """Check that what is restored computes what was trained, and the same bits each time."""
        found = self.compute(self.restore(folder).model)
        assert torch.equal(found, self.compute())
        assert torch.equal(self.compute(self.restore(folder).model), found)


MakeCase = Callable[..., Case]


@pytest.fixture
def make_case(tiny_base: Callable[[str], Path], tiny_source: Callable[[str], Path]) -> MakeCase:
    def make(method: str, task: str = "regression", style: str = "bert", **options: Any) -> Case:
        folder, labels = tiny_base(style), LABELS[task]
        task_type = TASK_TYPES["regression" if labels is None else "text-classification"](
            InputForm(max_length=32)
        )
        rows = [json.loads(line) for line in tiny_source(task).read_text().splitlines()[:12]]
        tokenizer = AutoTokenizer.from_pretrained(folder)
        features = task_type.encode_examples(tokenizer, rows, [row["label"] for row in rows], labels)
        targets = torch.tensor([row.pop("labels") for row in features])
        batch = tokenizer.pad(features, return_tensors="pt")
        torch.manual_seed(1)
        bare, newly_initialized = task_type.load_model(folder, labels)
        defaults = OPTIONS.get(method, {}) | (
            {"targets": TARGETS[style]} if method == "lora" and style in TARGETS else {}
        )
        chosen = METHODS[method](defaults | options, task_type.peft_task_type)
        model = chosen.adapt(bare, newly_initialized)
        return Case(folder, task_type, labels, chosen, model, newly_initialized, batch, targets)

    return make


# What comes back


@pytest.mark.parametrize("task", LABELS)
@pytest.mark.parametrize("method", OPTIONS)
def test_a_restored_adapter_computes_the_same_bits(
    make_case: MakeCase, method: str, task: str, tmp_path: Path
) -> None:
    case = make_case(method, task)
    untrained = case.compute()
    case.learn()
    assert not torch.equal(case.compute(), untrained), "nothing was learned, so that nothing is shown"
    folder = case.save(tmp_path / "adapter")
    assert sorted(path.name for path in folder.iterdir()) == [CONFIG_NAME, WEIGHTS_NAME]
    case.check_same(folder)
    assert not case.restore(folder).model.training


@pytest.mark.parametrize(("method", "style"), FITTING)
def test_every_family_of_models_comes_back(
    make_case: MakeCase, method: str, style: str, tmp_path: Path
) -> None:
    case = make_case(method, style=style).learn()
    case.check_same(case.save(tmp_path / "adapter"))


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("lora", {"dropout": 0.5, "alpha": 3, "r": 1}),
        ("lora", {"targets": ["query", "key", "value", "dense"]}),
        ("p-tuning", {"encoder": "lstm", "hidden_size": 8, "layers": 1}),
        ("p-tuning", {"tokens": 1, "hidden_size": 16}),
    ],
)
def test_options_come_back_from_the_adapter_alone(
    make_case: MakeCase, method: str, options: dict[str, Any], tmp_path: Path
) -> None:
    # Restoring is told no option: what shapes the adapter stands in its configuration.
    case = make_case(method, **options).learn()
    case.check_same(case.save(tmp_path / "adapter"))


@pytest.mark.parametrize("method", OPTIONS)
def test_a_pooler_that_the_base_lacks_is_trained_and_saved(
    make_case: MakeCase, method: str, tmp_path: Path
) -> None:
    case = make_case(method, style="bert-without-pooler")
    assert "bert.pooler.dense.weight" in case.newly_initialized
    pooler = {
        name: parameter.clone()
        for name, parameter in case.model.named_parameters()
        if "pooler" in name and "original_module" not in name
    }
    case.learn()
    after = dict(case.model.named_parameters())
    assert all(not torch.equal(after[name], former) for name, former in pooler.items())
    saved = load_file(case.save(tmp_path / "adapter") / WEIGHTS_NAME)
    assert {name[name.index("bert.") :] for name in saved if "pooler" in name} == {
        "bert.pooler.dense.weight",
        "bert.pooler.dense.bias",
    }
    assert not any("original_module" in name for name in saved)


@pytest.mark.parametrize("method", OPTIONS)
def test_equal_trainings_save_equal_bytes(make_case: MakeCase, method: str, tmp_path: Path) -> None:
    first, second = (make_case(method).learn().save(tmp_path / name) for name in ("first", "second"))
    for name in (CONFIG_NAME, WEIGHTS_NAME):
        assert (first / name).read_bytes() == (second / name).read_bytes()


# What is saved


def read_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in load_file(folder / WEIGHTS_NAME).items()}


def test_lora_saves_its_two_matrices_and_the_head(make_case: MakeCase, tmp_path: Path) -> None:
    case = make_case("lora", "classification").learn()
    expected = {"base_model.model.classifier.weight": (3, 32), "base_model.model.classifier.bias": (3,)}
    for layer in (0, 1):
        for target in ("query", "value"):
            name = f"base_model.model.bert.encoder.layer.{layer}.attention.self.{target}"
            expected |= {f"{name}.lora_A.weight": (4, 32), f"{name}.lora_B.weight": (32, 4)}
    assert read_shapes(case.save(tmp_path / "adapter")) == expected


def test_p_tuning_saves_its_tokens_and_the_head_without_the_encoder(
    make_case: MakeCase, tmp_path: Path
) -> None:
    case = make_case("p-tuning", "pair").learn()
    assert read_shapes(case.save(tmp_path / "adapter")) == {
        "prompt_embeddings": (4, 32),
        "base_model.classifier.weight": (2, 32),
        "base_model.classifier.bias": (2,),
    }


def test_full_saves_what_changed_and_the_head(make_case: MakeCase, tmp_path: Path) -> None:
    case = make_case("full")
    name = "bert.encoder.layer.1.output.dense.bias"
    with torch.no_grad():
        case.model.get_parameter(name)[0] += 1e-3
    assert read_shapes(case.save(tmp_path / "adapter")) == {
        "classifier.weight": (1, 32),
        "classifier.bias": (1,),
        name: (32,),
    }
    restored = case.restore(tmp_path / "adapter")
    assert torch.equal(case.compute(restored.model), case.compute(case.model.eval()))


@pytest.mark.parametrize("method", OPTIONS)
def test_the_configuration_names_the_base_and_no_place_on_this_machine(
    make_case: MakeCase, method: str, tmp_path: Path
) -> None:
    case = make_case(method)
    content = (case.save(tmp_path / "adapter") / CONFIG_NAME).read_text()
    document = json.loads(content)
    assert document["base_model_name_or_path"] == "package:somewhere/model"
    assert document["revision"] is None
    assert str(case.folder) not in content
    assert not any(isinstance(value, str) and value.startswith(("/", "~")) for value in document.values())


@pytest.mark.parametrize("method", ["lora", "p-tuning"])
def test_peft_itself_reads_what_is_saved(make_case: MakeCase, method: str, tmp_path: Path) -> None:
    from peft import PeftModel

    case = make_case(method).learn()
    folder = case.save(tmp_path / "adapter")
    config = json.loads((folder / CONFIG_NAME).read_text()) | {"base_model_name_or_path": str(case.folder)}
    (folder / CONFIG_NAME).write_text(json.dumps(config))
    bare, _ = case.task_type.load_model(case.folder, case.labels)
    loaded = PeftModel.from_pretrained(bare, folder).eval()
    assert torch.equal(case.compute(loaded), case.compute(case.restore(folder).model))


# How much is trained


@pytest.mark.parametrize(("method", "style"), FITTING)
def test_the_counts_are_those_of_what_requires_a_gradient(
    make_case: MakeCase, method: str, style: str
) -> None:
    case = make_case(method, style=style)
    counts = case.method.count_parameters(case.model, case.newly_initialized)
    trained = {
        name: parameter.numel()
        for name, parameter in case.model.named_parameters()
        if parameter.requires_grad
    }
    assert counts.trained == sum(trained.values())
    bare, _ = case.task_type.load_model(case.folder, case.labels)
    head = sum(bare.get_parameter(name).numel() for name in case.newly_initialized)
    assert counts.head == head
    base = sum(parameter.numel() for parameter in bare.parameters())
    expected = base if method == "full" else base + counts.adapter
    # P-tuning's soft tokens pass through an encoder that counts as trained; nothing is counted twice.
    assert counts.total == expected


def test_lora_on_the_real_base_has_the_published_size(minilm: Path, tmp_path: Path) -> None:
    task_type, method = (
        TASK_TYPES["regression"](InputForm(max_length=32)),
        METHODS["lora"]({"r": 8, "targets": ["query", "value"]}),
    )
    bare, newly_initialized = task_type.load_model(minilm, None)
    base = sum(
        parameter.numel() for name, parameter in bare.named_parameters() if name not in newly_initialized
    )
    names = {name for name, _ in bare.named_parameters()} - newly_initialized
    model = method.adapt(bare, newly_initialized)
    counts = method.count_parameters(model, newly_initialized)
    assert (counts.adapter, counts.head) == (73_728, 385)
    assert counts.trained == sum(
        parameter.numel() for parameter in model.parameters() if parameter.requires_grad
    )
    assert counts.total == base + 73_728 + 385
    method.save(model, tmp_path, IDENTITY)
    assert (tmp_path / WEIGHTS_NAME).stat().st_size < 2**20
    saved = read_shapes(tmp_path)
    assert sum(math.prod(shape) for shape in saved.values()) == 73_728 + 385
    assert not names & {name.removeprefix("base_model.model.") for name in saved}


@pytest.mark.parametrize(
    ("config", "options", "adapter"),
    [
        (RobertaConfig(), {"targets": ["query", "value"]}, 294_912),
        (
            RobertaConfig(
                hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096
            ),
            {"targets": ["query", "value"]},
            786_432,
        ),
        (
            DebertaV2Config(
                hidden_size=1536, num_hidden_layers=48, num_attention_heads=24, intermediate_size=6144
            ),
            {"r": 16, "targets": ["query_proj", "value_proj"]},
            4_718_592,
        ),
        (GPT2Config(n_embd=1024, n_layer=24, n_head=16), {"r": 4, "targets": ["c_attn"]}, 393_216),
    ],
    ids=["roberta-base", "roberta-large", "deberta-v2-xxlarge", "gpt2-medium"],
)
def test_lora_has_the_parameters_of_the_paper(
    config: PreTrainedConfig, options: dict[str, Any], adapter: int
) -> None:
    with torch.device("meta"):
        bare = AutoModelForSequenceClassification.from_config(config)
        newly_initialized = frozenset(
            name for name, _ in bare.named_parameters() if not name.startswith(bare.base_model_prefix)
        )
        method = METHODS["lora"](options)
        counts = method.count_parameters(method.adapt(bare, newly_initialized), newly_initialized)
    assert counts.adapter == adapter


@pytest.mark.parametrize("method", ["lora", "p-tuning"])
def test_the_base_stays_frozen(make_case: MakeCase, method: str, tmp_path: Path) -> None:
    case = make_case(method)
    bare, _ = case.task_type.load_model(case.folder, case.labels)
    original = {
        name: parameter for name, parameter in bare.named_parameters() if name not in case.newly_initialized
    }
    case.learn()
    after = dict(case.model.named_parameters())
    for name, parameter in original.items():
        (found,) = [
            other
            for path, other in after.items()
            if f".{path}".replace(".base_layer", "").endswith(f".{name}") and "lora" not in path
        ]
        assert torch.equal(found, parameter), f"{name} was changed"


# What is refused before training


def test_a_target_that_matches_nothing_is_refused_with_the_nearest_name(make_case: MakeCase) -> None:
    with pytest.raises(TrainingError) as caught:
        make_case("lora", targets=["query", "valeu"])
    assert "no linear layer of BertForSequenceClassification is called 'valeu'" in caught.value.what
    assert caught.value.where == "method.targets"
    assert "did you mean 'value'?" in caught.value.todo


def test_a_module_that_is_no_linear_layer_is_no_target(make_case: MakeCase) -> None:
    with pytest.raises(TrainingError, match=r"no linear layer of .* is called 'LayerNorm'"):
        make_case("lora", targets=["LayerNorm"])


def test_a_rank_above_that_of_the_matrix_is_refused(make_case: MakeCase) -> None:
    with pytest.raises(TrainingError) as caught:
        make_case("lora", r=33)
    assert "rank 33 is above the rank that 'query' can have, 32" in caught.value.what
    assert "at most 32" in caught.value.todo
    assert make_case("lora", r=32).method.options.r == 32


def test_gpt2_has_linear_layers_of_its_own(make_case: MakeCase) -> None:
    case = make_case("lora", style="gpt2", targets=["c_attn"], r=32)
    assert case.method.count_parameters(case.model, case.newly_initialized).adapter == 2 * 32 * (32 + 96)
    with pytest.raises(TrainingError, match="rank 33 is above the rank that 'c_attn' can have, 32"):
        make_case("lora", style="gpt2", targets=["c_attn"], r=33)


@pytest.mark.parametrize("name", ["lora", "adalora", "vera"])
@pytest.mark.parametrize(
    ("style", "block", "linear"),
    [
        (
            "bert",
            "bert.encoder.layer.1",
            [
                *(f"attention.self.{name}" for name in ("query", "key", "value")),
                *("attention.output.dense", "intermediate.dense", "output.dense"),
            ],
        ),
        ("gpt2", "transformer.h.1", ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]),
    ],
)
def test_all_linear_layers_of_the_last_block(
    make_case: MakeCase, name: str, style: str, block: str, linear: list[str]
) -> None:
    """PEFT itself restricts to layers what is named, and refuses to restrict ``all-linear``."""
    case: Any = make_case(name, style=style, targets="all-linear", layers=1)
    model = case.model.get_base_model()
    adapted = {path for path, module in model.named_modules() if hasattr(module, "base_layer")}
    assert adapted - {"classifier", "score"} == {f"{block}.{each}" for each in linear}


def test_peft_knows_the_targets_of_known_families_only(make_case: MakeCase) -> None:
    case = make_case("lora", targets=None)
    assert case.method.count_parameters(case.model, case.newly_initialized).adapter == 2 * 2 * 2 * 4 * 32
    with pytest.raises(TrainingError, match="PEFT cannot put lora on DistilBert") as caught:
        make_case("lora", style="distilbert", targets=None)
    assert "choose targets" in caught.value.todo


def list_faults(section: dict[str, Any]) -> list[Fault]:
    """What a method section has of faults, whatever the task type and the base are."""
    method = MethodSpec.model_validate(section)
    return list(check_sections(TaskSections(None, None, method, None, None, None)))


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("lora", {"rank": 8}),
        ("lora", {"r": 0}),
        ("lora", {"r": "eight"}),
        ("lora", {"dropout": 1.0}),
        ("lora", {"targets": []}),
        ("lora", {"alpha": 0}),
        ("p-tuning", {"tokens": 0}),
        ("p-tuning", {"encoder": "gru"}),
        ("p-tuning", {"r": 8}),
        ("full", {"r": 8}),
    ],
)
def test_unknown_and_impossible_options_are_refused(method: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        METHODS[method](options)
    faults = list_faults({"name": method, **options})
    assert [fault.where for fault in faults] == [f"method.{next(iter(options))}"]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("target", "targets"),
        ("rank", "r"),
        # As PEFT calls them.
        *(("lora_alpha", "alpha"), ("target_modules", "targets"), ("lora_dropout", "dropout")),
        *(("use_dora", "dora"), ("init_lora_weights", "init"), ("layers_to_transform", "layers")),
    ],
)
def test_the_fault_of_an_unknown_option_suggests_a_known_one(written: str, meant: str) -> None:
    (fault,) = list_faults({"name": "lora", written: 1})
    assert fault.advice == f"lora has no option {written!r}; did you mean {meant!r}?"
    assert fault.remedy == f"did you mean {meant!r}?"


def test_what_belongs_to_training_is_sent_there() -> None:
    (fault,) = list_faults({"name": "lora", "learning_rate": 1e-3})
    assert fault.advice == (
        "lora has no option 'learning_rate'; it belongs to the train section: train.learning_rate"
    )


def test_no_option_of_another_method_is_suggested() -> None:
    (fault,) = list_faults({"name": "prompt-tuning", "rank": 8})
    assert fault.advice == "prompt-tuning has no option 'rank'; known are init, tokens"


def test_the_fault_of_an_unknown_method_suggests_a_known_one() -> None:
    (fault,) = list_faults({"name": "lore"})
    assert fault.advice == "there is no method 'lore'; did you mean 'lora'?"


# What is refused when it is loaded


def change_config(folder: Path, **changes: Any) -> None:
    document = json.loads((folder / CONFIG_NAME).read_text())
    (folder / CONFIG_NAME).write_text(json.dumps(document | changes))


def change_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    # Copies: what is loaded is a view of the file.
    tensors = {name: tensor.clone() for name, tensor in load_file(folder / WEIGHTS_NAME).items()}
    change(tensors)
    save_file(tensors, folder / WEIGHTS_NAME)


def refuse(case: Case, folder: Path, method: str | None = None) -> AdapterRejectedError:
    with pytest.raises(AdapterRejectedError) as caught:
        case.restore(folder, method)
    assert str(folder) in caught.value.where
    assert caught.value.todo
    return caught.value


def find_name(method: str, tensors: Mapping[str, Any], part: str) -> str:
    return next(name for name in sorted(tensors) if part in name)


PARTS = {"lora": "lora_B", "p-tuning": "prompt_embeddings", "full": "encoder.layer.0"}


@pytest.mark.parametrize("method", ["lora", "p-tuning"])
def test_a_missing_tensor_is_refused(make_case: MakeCase, method: str, tmp_path: Path) -> None:
    case = make_case(method).learn()
    folder = case.save(tmp_path / "adapter")
    name = find_name(method, load_file(folder / WEIGHTS_NAME), PARTS[method])
    change_tensors(folder, lambda tensors: tensors.pop(name))
    assert f"{name} is missing" in refuse(case, folder).what


@pytest.mark.parametrize("style", ["bert", "bert-without-pooler"])
@pytest.mark.parametrize("method", OPTIONS)
def test_a_missing_head_is_refused(make_case: MakeCase, method: str, style: str, tmp_path: Path) -> None:
    # The base has none: without this, random numbers would predict.
    case = make_case(method, style=style).learn()
    for bare in sorted(case.newly_initialized):
        folder = case.save(tmp_path / bare)
        name = find_name(method, load_file(folder / WEIGHTS_NAME), bare)
        change_tensors(folder, lambda tensors, name=name: tensors.pop(name))
        assert f"{bare} is missing" in refuse(case, folder).what


def test_a_configuration_that_does_not_mention_the_pooler_is_refused(
    make_case: MakeCase, tmp_path: Path
) -> None:
    case = make_case("lora", style="bert-without-pooler").learn()
    folder = case.save(tmp_path / "adapter")
    change_config(folder, modules_to_save=["classifier"])
    change_tensors(folder, lambda tensors: [tensors.pop(name) for name in list(tensors) if "pooler" in name])
    assert "bert.pooler.dense.weight is missing, and the base does not hold it" in refuse(case, folder).what


@pytest.mark.parametrize("method", OPTIONS)
def test_an_extra_tensor_is_refused(make_case: MakeCase, method: str, tmp_path: Path) -> None:
    case = make_case(method).learn()
    folder = case.save(tmp_path / "adapter")
    change_tensors(folder, lambda tensors: tensors.update({"surprise.weight": torch.ones(2)}))
    assert "surprise.weight is not part of this method on this base" in refuse(case, folder).what


@pytest.mark.parametrize("method", OPTIONS)
def test_a_tensor_of_another_shape_is_refused(make_case: MakeCase, method: str, tmp_path: Path) -> None:
    case = make_case(method).learn()
    folder = case.save(tmp_path / "adapter")
    name = find_name(method, load_file(folder / WEIGHTS_NAME), PARTS[method])
    change_tensors(folder, lambda tensors: tensors.update({name: torch.ones(3, 5)}))
    assert f"{name} has shape [3, 5], the base needs" in refuse(case, folder).what


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("method", OPTIONS)
def test_numbers_that_are_not_finite_are_refused(
    make_case: MakeCase, method: str, value: float, tmp_path: Path
) -> None:
    case = make_case(method).learn()
    folder = case.save(tmp_path / "adapter")
    name = find_name(method, load_file(folder / WEIGHTS_NAME), PARTS[method])
    change_tensors(folder, lambda tensors: tensors[name].view(-1).__setitem__(0, value))
    assert f"{name} holds NaN or infinity" in refuse(case, folder).what


def test_many_problems_are_told_in_short(make_case: MakeCase, tmp_path: Path) -> None:
    case = make_case("lora").learn()
    folder = case.save(tmp_path / "adapter")
    change_tensors(folder, lambda tensors: [tensors.pop(name) for name in list(tensors) if "lora" in name])
    assert refuse(case, folder).what.endswith("; and 5 more")


@pytest.mark.parametrize("method", ["lora", "p-tuning"])
def test_a_key_that_peft_would_ignore_is_refused(make_case: MakeCase, method: str, tmp_path: Path) -> None:
    case = make_case(method)
    folder = case.save(tmp_path / "adapter")
    change_config(folder, use_magic=True, of_tomorrow=1)
    assert "of_tomorrow, use_magic would be ignored" in refuse(case, folder).what


@pytest.mark.parametrize("peft_type", ["MAGIC", None, 3, ["LORA"], "lora", "ADAPTION_PROMPT"])
@pytest.mark.parametrize("method", ["lora", "peft"])
def test_an_unknown_peft_type_is_refused(
    make_case: MakeCase, method: str, peft_type: object, tmp_path: Path
) -> None:
    case = make_case(method, **OTHERS.get(method, {}))
    folder = case.save(tmp_path / "adapter")
    change_config(folder, peft_type=peft_type)
    assert f"peft_type is {peft_type!r}" in refuse(case, folder).what


@pytest.mark.parametrize("other", OPTIONS)
@pytest.mark.parametrize("method", OPTIONS)
def test_the_folder_of_another_method_is_refused(
    make_case: MakeCase, method: str, other: str, tmp_path: Path
) -> None:
    case = make_case(method).learn()
    folder = case.save(tmp_path / "adapter")
    if method == other:
        case.check_same(folder)
    else:
        expected = "it does not hold an adapter of method full" if other == "full" else "peft_type is"
        assert expected in refuse(case, folder, other).what


@pytest.mark.parametrize("key", ["auto_mapping", "parent_library", "base_model_class"])
def test_a_configuration_that_would_import_code_is_refused(
    make_case: MakeCase, key: str, tmp_path: Path
) -> None:
    case = make_case("lora")
    folder = case.save(tmp_path / "adapter")
    change_config(folder, **{key: {"parent_library": "os"}})
    assert f"{key} would import code" in refuse(case, folder).what


@pytest.mark.parametrize(
    ("method", "reaching"),
    [
        ("lora", {"megatron_core": "os", "megatron_config": {"a": 1}}),
        ("lora", {"corda_config": {"cache_file": "of-another.pt"}}),
        ("peft", {"peft_type": "SHADOW", "shadow_model": "somebody/model"}),
    ],
)
def test_a_configuration_that_would_load_what_is_not_its_own_is_refused(
    make_case: MakeCase, method: str, reaching: dict[str, Any], tmp_path: Path
) -> None:
    case = make_case(method, **OTHERS.get(method, {}))
    folder = case.save(tmp_path / "adapter")
    if "peft_type" in reaching:
        (folder / CONFIG_NAME).write_text("{}", "utf-8")
    change_config(folder, **reaching)
    named = ", ".join(sorted(reaching.keys() - {"peft_type"}))
    assert f"{named} would make PEFT load what is no part of this adapter" in refuse(case, folder).what


def test_a_configuration_whose_targets_this_base_lacks_is_refused(
    make_case: MakeCase, tmp_path: Path
) -> None:
    case = make_case("lora")
    folder = case.save(tmp_path / "adapter")
    change_config(folder, target_modules=["q_proj"])
    assert "PEFT cannot put lora on BertForSequenceClassification" in refuse(case, folder).what


def test_an_adapter_of_a_wider_base_is_refused(make_case: MakeCase, tmp_path: Path) -> None:
    folder = make_case("lora", style="bert-wide").learn().save(tmp_path / "adapter")
    assert "has shape" in refuse(make_case("lora"), folder).what


# The base beneath


@pytest.fixture(
    params=[(method, style) for method, style in FITTING if style in ("bert", "bert-without-pooler")]
)
def restored(
    request: pytest.FixtureRequest, make_case: MakeCase, tmp_path: Path
) -> Iterator[tuple[Case, AdaptedModel]]:
    method, style = request.param
    case = make_case(method, style=style).learn()
    yield case, case.restore(case.save(tmp_path / "adapter"))


def test_without_the_adapter_the_base_acts_below_the_trained_head(
    restored: tuple[Case, AdaptedModel], tmp_path: Path
) -> None:
    case, adapted = restored
    before = case.compute(adapted.model)
    with adapted.without_adapter():
        inside = case.compute(adapted.model)
    assert not torch.equal(inside, before)
    # By hand: a bare base with the trained head, and the trained pooler where the base has none.
    bare, newly_initialized = case.task_type.load_model(case.folder, case.labels)
    saved = load_file(tmp_path / "adapter" / WEIGHTS_NAME)
    with torch.no_grad():
        for name in newly_initialized:
            bare.get_parameter(name).copy_(next(saved[path] for path in saved if path.endswith(name)))
    torch.testing.assert_close(inside, case.compute(bare.eval()), rtol=0, atol=1e-6)


def test_the_model_is_left_as_it_was(restored: tuple[Case, AdaptedModel]) -> None:
    case, adapted = restored
    state = {name: tensor.clone() for name, tensor in adapted.model.state_dict().items()}
    before = case.compute(adapted.model)
    with adapted.without_adapter():
        pass
    assert torch.equal(case.compute(adapted.model), before)
    with pytest.raises(ZeroDivisionError), adapted.without_adapter():
        raise ZeroDivisionError
    assert torch.equal(case.compute(adapted.model), before)
    after = adapted.model.state_dict()
    assert after.keys() == state.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in state.items())
    assert not any(module.training for module in adapted.model.modules())
