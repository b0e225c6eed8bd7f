"""``mlflow.pyfunc.load_model("models:/<task>@champion")`` loads and predicts, without a pickle."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import requests
from mlflow.exceptions import MlflowException

from lorry_components.inference import load_adapter, mlflow_flavor
from lorry_components.inference.mlflow_flavor import AdapterModel
from lorry_components.steps.gate.step import Decision
from lorry_components.steps.register.step import register
from lorry_components.tasks.resolution import resolve_task
from lorry_registry.errors import AdapterRejectedError, BaseModelError, UsageError
from lorry_registry.manifest import ADAPTER_FILES, MANIFEST_NAME, WEIGHTS_NAME
from lorry_registry.mlflow.index import MlflowIndex
from lorry_registry.mlflow.model_versions import LOADER
from lorry_registry.records.provenance import Build
from lorry_registry.registry import Registry
from lorry_registry.stores import LocalStore

from fixtures.s3_server import find_ports
from fixtures.signing import KeyPair, OpenRegistry

# One method of each family: what a method does by itself has tests of its own.
TRIED = ("full", "lora", "adapter-h", "p-tuning", "p-tuning-v2", "peft")

FindTrained = Callable[..., Any]
TEXTS = ["the film was good", "so dull and very boring", "a lovely story but the cast was weak"]
PAIRS = [{"text": text, "text_pair": other} for text, other in zip(TEXTS, TEXTS[::-1], strict=True)]


@pytest.fixture
def enrol(trained: FindTrained, registry: Registry, tracking: str) -> Callable[..., Path]:
    """Return a function that registers a candidate, and returns the adapter's folder."""

    def start(task: str, method: str = "lora", **options: Any) -> Path:
        found = trained(task, method, **options)
        registration = register(
            resolve_task(found.spec),
            found.candidate,
            found.report,
            Decision(passed=True, reasons=("good",), judged_champion=None),
            registry=registry,
            index=MlflowIndex(tracking),
            details={},
        )
        assert registration.warning == ""
        return registry.fetch(registration.event.adapter_id)

    return start


def load(task: str, **options: Any) -> Any:
    import mlflow.pyfunc

    return mlflow.pyfunc.load_model(f"models:/tiny-{task}@champion", **options)


@pytest.fixture
def model_folder(tracking: str, tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that downloads what MLflow has of a task's champion."""

    def find(task: str) -> Path:
        from mlflow.artifacts import download_artifacts

        return Path(
            download_artifacts(f"models:/tiny-{task}@champion", dst_path=str(tmp_path / "downloaded"))
        )

    return find


def check_frame(frame: pd.DataFrame, expected: list[dict[str, Any]]) -> None:
    """Check that a frame holds predictions."""
    assert list(frame.columns) == list(expected[0])
    assert frame.to_dict("records") == expected


@pytest.mark.parametrize("method", TRIED)
def test_the_champion_predicts_what_lorry_predicts(enrol: Callable[..., Path], method: str) -> None:
    folder = enrol("regression", method)
    expected = load_adapter(folder).predictor.predict([{"text": text} for text in TEXTS])
    model = load("regression")
    check_frame(model.predict(TEXTS), expected)


@pytest.mark.parametrize(
    "given",
    [
        TEXTS,
        np.asarray(TEXTS, dtype=object),
        pd.Series(TEXTS),
        pd.Series(TEXTS, name="review", index=[7, 8, 9]),
        pd.DataFrame({"text": TEXTS}),
        pd.DataFrame({"anything": TEXTS}),
        {"text": TEXTS},
    ],
    ids=["list", "array", "series", "named series", "frame", "frame of one column", "mapping"],
)
def test_texts_may_come_in_any_shape(enrol: Callable[..., Path], given: Any) -> None:
    folder = enrol("classification")
    expected = load_adapter(folder).predictor.predict([{"text": text} for text in TEXTS])
    check_frame(load("classification").predict(given), expected)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_the_signature_says_what_comes_out(enrol: Callable[..., Path], task: str) -> None:
    from mlflow.types import DataType
    from mlflow.types.schema import Map
    from mlflow.types.utils import _infer_schema

    enrol(task)
    model = load(task)
    predicted = model.predict(TEXTS)
    # Whatever MLflow reads off the predictions themselves, without what it says of missing values. Of the
    # scores it would name each class.
    outputs = {column.name: column.type for column in model.metadata.signature.outputs}
    assert list(outputs) == list(predicted.columns)
    kinds = {column.name: column.type for column in _infer_schema(predicted) if column.name != "scores"}
    assert {name: kind for name, kind in outputs.items() if name != "scores"} == kinds
    if "scores" in outputs:
        assert outputs["scores"] == Map(DataType.double)


def test_loading_does_not_say_that_the_head_is_random(
    enrol: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    from transformers.utils import logging

    enrol("classification")
    verbosity = logging.get_verbosity()
    logging.set_verbosity_warning()
    # Its records do not go up to the root, where caplog listens.
    logging.get_logger().addHandler(caplog.handler)
    try:
        load("classification")
        assert logging.get_verbosity() == logging.WARNING
    finally:
        logging.get_logger().removeHandler(caplog.handler)
        logging.set_verbosity(verbosity)
    assert "MISSING" not in caplog.text


def test_a_single_text_is_a_list_of_one(enrol: Callable[..., Path]) -> None:
    folder = enrol("regression")
    loaded = load_adapter(folder)
    expected = loaded.predictor.predict([{"text": TEXTS[0]}])
    check_frame(load("regression").predict([TEXTS[0]]), expected)
    check_frame(load("regression").predict(TEXTS[0]), expected)
    check_frame(AdapterModel(loaded).predict(TEXTS[0]), expected)


@pytest.mark.parametrize("given", [pd.DataFrame(PAIRS), PAIRS], ids=["frame", "records"])
def test_pairs_are_a_frame_of_two_columns(enrol: Callable[..., Path], given: Any) -> None:
    folder = enrol("pair")
    expected = load_adapter(folder).predictor.predict(PAIRS)
    check_frame(load("pair").predict(given), expected)


def test_the_order_of_the_columns_of_a_pair_does_not_matter(enrol: Callable[..., Path]) -> None:
    folder = enrol("pair")
    expected = load_adapter(folder).predictor.predict(PAIRS)
    check_frame(load("pair").predict(pd.DataFrame(PAIRS)[["text_pair", "text"]]), expected)


def test_a_pair_without_its_second_text_is_refused(enrol: Callable[..., Path]) -> None:
    folder = enrol("pair")
    with pytest.raises(MlflowException, match="text_pair"):
        load("pair").predict(pd.DataFrame({"text": TEXTS}))
    model = AdapterModel(load_adapter(folder))
    with pytest.raises(UsageError, match="the input has no column text_pair"):
        model.predict(pd.DataFrame({"text": TEXTS}))
    with pytest.raises(UsageError, match="the input has no column text and no column text_pair"):
        model.predict(TEXTS)
    with pytest.raises(UsageError, match="give the columns text, text_pair"):
        model.predict([])


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        (["good", "  "], "row 2: column 'text' is empty"),
        ([""], "row 1: column 'text' is empty"),
        (["good", None], "row 2: column 'text' is .*, not a string"),
        (pd.DataFrame({"text": ["good", float("nan")]}), "row 2: column 'text' is .*, not a string"),
        ([3], "row 1: column 'text' is .*, not a string"),
        ([""] * 12, "row 10: column 'text' is empty; and 2 more"),
    ],
)
def test_what_is_no_text_is_refused_as_in_a_table(enrol: Callable[..., Path], given: Any, fault: str) -> None:
    enrol("regression")
    with pytest.raises(UsageError, match=fault):
        load("regression").predict(given)


# As a server


@pytest.fixture
def invoke(enrol: Callable[..., Path]) -> Callable[[str, dict[str, Any]], Any]:
    """Return a function that asks MLflow's scoring server, without a network, and returns its answer."""
    from mlflow.pyfunc.scoring_server import invocations

    def ask(task: str, body: dict[str, Any]) -> Any:
        model = load(task)
        schema = model.metadata.get_input_schema()
        return json.loads(invocations(json.dumps(body), "application/json", model, schema).response)

    return ask


@pytest.mark.parametrize(
    "body",
    [
        {"inputs": TEXTS},
        {"inputs": {"text": TEXTS}},
        {"instances": TEXTS},
        {"instances": [{"text": text} for text in TEXTS]},
        {"inputs": [{"text": text} for text in TEXTS]},
        {"dataframe_split": {"columns": ["text"], "data": [[text] for text in TEXTS]}},
        {"dataframe_records": [{"text": text} for text in TEXTS]},
    ],
    ids=str,
)
def test_a_server_takes_each_form_and_gives_numbers(
    enrol: Callable[..., Path], invoke: Callable[..., Any], body: dict[str, Any]
) -> None:
    folder = enrol("classification")
    expected = load_adapter(folder).predictor.predict([{"text": text} for text in TEXTS])
    assert invoke("classification", body) == {"predictions": expected}


def test_a_server_takes_pairs(enrol: Callable[..., Path], invoke: Callable[..., Any]) -> None:
    expected = load_adapter(enrol("pair")).predictor.predict(PAIRS)
    columns = {name: [pair[name] for pair in PAIRS] for name in ("text", "text_pair")}
    for body in ({"inputs": columns}, {"dataframe_records": PAIRS}):
        assert invoke("pair", body) == {"predictions": expected}


@pytest.mark.slow
def test_mlflow_serves_the_champion(enrol: Callable[..., Path], tracking: str, tmp_path: Path) -> None:
    folder = enrol("classification")
    expected = load_adapter(folder).predictor.predict([{"text": text} for text in TEXTS])
    (port,) = find_ports(1)
    programs = Path(sys.executable).parent
    command = [str(programs / "mlflow"), "models", "serve", "--env-manager", "local", "--port", str(port)]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--model-uri", "models:/tiny-classification@champion"],
            # MLflow starts its server by name.
            env={
                **os.environ,
                "MLFLOW_TRACKING_URI": tracking,
                "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            },
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        address = f"http://127.0.0.1:{port}"
        _wait_for(f"{address}/ping", process, tmp_path / "log")
        answer = requests.post(f"{address}/invocations", json={"inputs": {"text": TEXTS}}, timeout=60)
        assert answer.json() == {"predictions": expected}
        answer = requests.post(f"{address}/invocations", json={"inputs": ["good", " "]}, timeout=60)
        assert answer.status_code == requests.codes.bad_request
        assert "row 2: column 'text' is empty" in answer.text
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def _wait_for(address: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 120
    while True:
        assert process.poll() is None, log.read_text("utf-8")
        try:
            requests.get(address, timeout=5).raise_for_status()
        except requests.RequestException:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        else:
            return


# Files that were exchanged


def test_another_adapters_files_in_the_models_folder_are_refused(
    enrol: Callable[..., Path], model_folder: Callable[[str], Path]
) -> None:
    import mlflow.pyfunc

    enrol("regression")
    other = enrol("classification")
    folder = model_folder("regression")
    for name in (*ADAPTER_FILES, MANIFEST_NAME):
        shutil.copyfile(other / name, folder / name)
    with pytest.raises(AdapterRejectedError, match="its id is sha256:"):
        mlflow.pyfunc.load_model(str(folder))


def test_a_model_that_does_not_say_which_adapter_it_is_is_refused(
    enrol: Callable[..., Path], model_folder: Callable[[str], Path]
) -> None:
    import mlflow.pyfunc

    enrol("regression")
    folder = model_folder("regression")
    lines = (folder / "MLmodel").read_text("utf-8").splitlines(keepends=True)
    (folder / "MLmodel").write_text("".join(line for line in lines if "adapter_id:" not in line), "utf-8")
    with pytest.raises(AdapterRejectedError, match="does not say which adapter it is"):
        mlflow.pyfunc.load_model(str(folder))


def test_the_index_knows_which_module_loads_a_model() -> None:
    assert mlflow_flavor.__name__ == LOADER


# What is in it


@pytest.mark.parametrize("task", ["regression", "pair"])
def test_the_model_folder_holds_the_adapter_and_no_code(
    enrol: Callable[..., Path], model_folder: Callable[[str], Path], task: str
) -> None:
    adapter = enrol(task)
    folder = model_folder(task)
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    environment = {"requirements.txt", "conda.yaml", "python_env.yaml"}
    assert names - {"registered_model_meta"} == {*ADAPTER_FILES, MANIFEST_NAME, "MLmodel", *environment}
    for name in (*ADAPTER_FILES, MANIFEST_NAME):
        assert (folder / name).read_bytes() == (adapter / name).read_bytes()
    assert sum(path.stat().st_size for path in folder.rglob("*")) < 2**20
    document = (folder / "MLmodel").read_text("utf-8")
    assert "lorry_components.inference.mlflow_flavor" in document
    for word in ("python_model", "cloudpickle", ".pkl", "code:"):
        assert word not in document
    requirements = (folder / "requirements.txt").read_text("utf-8").splitlines()
    # What cannot be installed from an index says by which commands it can.
    assert "make dist && pip install" in requirements[1]
    assert requirements[2].startswith("lorry[train]==")
    assert any(line.startswith("torch==") and "+" not in line for line in requirements)


def test_the_document_says_where_the_model_comes_from(
    enrol: Callable[..., Path], model_folder: Callable[[str], Path]
) -> None:
    import yaml

    enrol("pair")
    document = yaml.safe_load((model_folder("pair") / "MLmodel").read_text("utf-8"))
    flavor = document["flavors"]["lorry"]
    assert flavor["task"] == "tiny-pair"
    assert flavor["adapter_id"].startswith("sha256:")
    inputs = json.loads(document["signature"]["inputs"])
    assert [(column["name"], column["type"]) for column in inputs] == [
        ("text", "string"),
        ("text_pair", "string"),
    ]
    assert document["run_id"]


# What it refuses


def test_a_changed_byte_is_refused(enrol: Callable[..., Path], model_folder: Callable[[str], Path]) -> None:
    import mlflow.pyfunc

    enrol("regression")
    folder = model_folder("regression")
    path = folder / WEIGHTS_NAME
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(AdapterRejectedError, match=f"{WEIGHTS_NAME} was changed"):
        mlflow.pyfunc.load_model(str(folder))


def test_a_pickle_that_was_put_beside_is_refused(
    enrol: Callable[..., Path], model_folder: Callable[[str], Path]
) -> None:
    import mlflow.pyfunc

    enrol("regression")
    folder = model_folder("regression")
    (folder / "python_model.pkl").write_bytes(b"")
    with pytest.raises(AdapterRejectedError, match=r"python_model\.pkl does not belong to it"):
        mlflow.pyfunc.load_model(str(folder))


def test_a_base_with_a_logical_name_is_found_where_this_process_has_its_bases(
    enrol: Callable[..., Path],
    tiny_base: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    enrol("regression")
    shutil.copytree(tiny_base("bert"), tmp_path / "bases" / "tiny")
    with pytest.raises(BaseModelError, match="LORRY_BASES does not say where"):
        load("regression", model_config={"base_model": "bases:tiny"})
    monkeypatch.setenv("LORRY_BASES", str(tmp_path / "bases"))
    named = load("regression", model_config={"base_model": "bases:tiny"})
    pd.testing.assert_frame_equal(named.predict(TEXTS), load("regression").predict(TEXTS))


def test_the_base_may_be_named_when_it_is_loaded(
    enrol: Callable[..., Path],
    tiny_base: Callable[[str], Path],
    make_base: Callable[..., Path],
    tmp_path: Path,
) -> None:
    enrol("regression")
    copy = shutil.copytree(tiny_base("bert"), tmp_path / "copy")
    named = load("regression", model_config={"base_model": str(copy)})
    pd.testing.assert_frame_equal(named.predict(TEXTS), load("regression").predict(TEXTS))
    with pytest.raises(AdapterRejectedError, match="and this base has sha256:"):
        load("regression", model_config={"base_model": str(make_base(seed=3))})


@pytest.fixture
def require_signatures(
    open_registry: OpenRegistry, ours: KeyPair, store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> Registry:
    """Let this process, as MLflow sees it, require our signatures; return the registry of who has the key."""
    for name, value in {
        "LORRY_SIGNING_POLICY": "require",
        "LORRY_TRUSTED_KEYS": str(ours.public),
        "LORRY_STORE": store.address,
    }.items():
        monkeypatch.setenv(name, value)
    return open_registry(key=ours)


@pytest.fixture
def enrol_signed(trained: FindTrained, require_signatures: Registry, tracking: str) -> Callable[..., str]:
    """Return a function that registers a candidate with its signature, and returns its id."""

    def start(task: str, method: str = "lora") -> str:
        found = trained(task, method)
        champion = require_signatures.ledger.read_state(f"tiny-{task}").champion_version
        registration = register(
            resolve_task(found.spec),
            found.candidate,
            found.report,
            Decision(passed=True, reasons=("good",), judged_champion=champion),
            registry=require_signatures,
            index=MlflowIndex(tracking),
            details={},
            build=Build(builder="urn:lorry:builder:process"),
        )
        assert registration.warning == ""
        return registration.event.adapter_id

    return start


def test_a_signed_model_carries_its_signature(
    enrol_signed: Callable[[str], str],
    model_folder: Callable[[str], Path],
    store: LocalStore,
    ours: KeyPair,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import mlflow.pyfunc

    adapter_id = enrol_signed("regression")
    folder = model_folder("regression")
    assert [path.stem for path in (folder / "signatures").iterdir()] == [ours.id]
    # The store is not needed for it.
    monkeypatch.setenv("LORRY_STORE", str(folder.parent / "elsewhere"))
    assert len(mlflow.pyfunc.load_model(str(folder)).predict(TEXTS)) == len(TEXTS)
    # An adapter that was signed after it went to MLflow has its signature in the store.
    shutil.rmtree(folder / "signatures")
    with pytest.raises(AdapterRejectedError, match="it is not signed"):
        mlflow.pyfunc.load_model(str(folder))
    monkeypatch.setenv("LORRY_STORE", store.address)
    mlflow.pyfunc.load_model(str(folder))
    shutil.rmtree(store.root / "attestations" / adapter_id[7:] / "signatures")
    with pytest.raises(AdapterRejectedError, match="it is not signed"):
        mlflow.pyfunc.load_model(str(folder))
    monkeypatch.setenv("LORRY_SIGNING_POLICY", "none")
    mlflow.pyfunc.load_model(str(folder))


def test_a_model_that_another_key_signed_is_refused(
    enrol_signed: Callable[[str], str],
    model_folder: Callable[[str], Path],
    theirs: KeyPair,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import mlflow.pyfunc

    enrol_signed("regression")
    monkeypatch.setenv("LORRY_TRUSTED_KEYS", str(theirs.public))
    with pytest.raises(AdapterRejectedError, match="by no key trusted here"):
        mlflow.pyfunc.load_model(str(model_folder("regression")))


def test_a_file_that_was_planted_among_the_signatures_is_refused(
    enrol_signed: Callable[[str], str], model_folder: Callable[[str], Path]
) -> None:
    import mlflow.pyfunc

    enrol_signed("regression")
    folder = model_folder("regression")
    (folder / "signatures" / "adapter_model.bin").write_bytes(b"pickle")
    with pytest.raises(AdapterRejectedError, match=r"signatures/adapter_model\.bin does not belong"):
        mlflow.pyfunc.load_model(str(folder))


@pytest.fixture
def move_alias(tracking: str) -> Callable[..., None]:
    """Return a function that does what a person without a key may do in MLflow."""
    from mlflow import MlflowClient

    client = MlflowClient()

    def move(task: str, number: str, *, source: str = "") -> None:
        name = f"tiny-{task}"
        if source:
            number = client.create_model_version(name, source).version
        client.set_registered_model_alias(name, "champion", number)

    return move


def test_another_tasks_signed_adapter_is_refused(
    enrol_signed: Callable[..., str],
    move_alias: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from mlflow import MlflowClient

    enrol_signed("regression")
    enrol_signed("classification")
    assert len(load("regression").predict(TEXTS)) == len(TEXTS)
    other = MlflowClient().get_model_version("tiny-classification", "1")
    move_alias("regression", "", source=other.source)
    with pytest.raises(AdapterRejectedError, match="is no adapter of the task 'tiny-regression'"):
        load("regression")
    monkeypatch.setenv("LORRY_SIGNING_POLICY", "warn")
    load("regression")
    assert "not refused, since LORRY_SIGNING_POLICY is warn" in caplog.text
    assert "but one of 'tiny-classification'" in caplog.text


def test_an_older_version_is_not_the_champion_because_mlflow_says_so(
    enrol_signed: Callable[..., str], move_alias: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    import mlflow.pyfunc

    enrol_signed("regression")
    enrol_signed("regression", "full")
    assert len(load("regression").predict(TEXTS)) == len(TEXTS)
    assert "is not the champion" not in caplog.text
    # By its number it may be loaded, as lorry predict --version does.
    mlflow.pyfunc.load_model("models:/tiny-regression/1")
    assert "this is v1 of 'tiny-regression', which is not the champion: former champion" in caplog.text
    move_alias("regression", "1")
    with pytest.raises(AdapterRejectedError, match="alias champion names v1") as caught:
        load("regression")
    assert "lorry reconcile tiny-regression" in str(caught.value)


def test_a_ledger_that_is_not_there_is_named(
    enrol_signed: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    enrol_signed("regression")
    monkeypatch.setenv("LORRY_STORE", str(tmp_path / "elsewhere"))
    load("regression")
    assert "the ledger could not be asked whether this is its adapter" in caplog.text
    assert not (tmp_path / "elsewhere").exists()
