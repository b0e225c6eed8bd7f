"""A folder of tasks on a tiny base, and the real ``lorry`` command in it, with a LORRY_HOME of its own."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

PROGRAM = Path(sys.executable).with_name("lorry")
# Seconds. A run takes about a minute by itself, and several minutes beside others.
PATIENCE = 480

# A random BERT of two layers of 32: a step takes a millisecond, and the whole path is the real one.
MAKE_BASE = """
import string, sys, warnings
from pathlib import Path
warnings.simplefilter("ignore")
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

folder = Path(sys.argv[1])
letters = string.ascii_lowercase + string.digits
words = "the was film food service place very really good great fine bad awful poor of five".split()
pieces = [*letters, *(f"##{letter}" for letter in letters)]
vocabulary = list(dict.fromkeys(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *pieces]))
folder.mkdir()
(folder / "vocab.txt").write_text("\\n".join(vocabulary) + "\\n")
tokenizer = BertTokenizerFast(str(folder / "vocab.txt"))
torch.manual_seed(0)
config = BertConfig(
    vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
    intermediate_size=64, max_position_embeddings=64,
)
BertModel(config).save_pretrained(folder)
tokenizer.save_pretrained(folder)
"""


@dataclass(frozen=True)
class Finished:
    """A command that ended."""

    code: int
    out: str
    err: str
    seconds: float

    def read_json(self) -> Any:
        return json.loads(self.out)


class Workspace:
    """A folder of tasks, with the command line in it.

    ``home`` is its LORRY_HOME, ``base`` a tiny base for its tasks.
    """

    def __init__(self, folder: Path, base: Path) -> None:
        self.folder = folder
        self.base = base
        self.home = folder / "home"
        self.store = self.home / "store"

    def build_environment(self, **changes: str) -> dict[str, str]:
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("LORRY_", "MLFLOW_"))
        }
        own = {
            "LORRY_HOME": str(self.home),
            # Whatever a run needs is on this machine: a look at a hub would fail.
            "HF_HUB_OFFLINE": "1",
            # Two threads that wait for each other on a busy machine are slower than one, by far.
            "OMP_NUM_THREADS": "1",
        }
        return inherited | own | changes

    def start(self, *arguments: str | Path, **environment: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [PROGRAM, *arguments],
            cwd=self.folder,
            env=self.build_environment(**environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # Ctrl-C is ignored by what a shell starts in the background, and so by all below it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )

    def run(self, *arguments: str | Path, code: int = 0, **environment: str) -> Finished:
        """Run ``lorry`` to its end: with this exit code, and never with a traceback."""
        started = time.monotonic()
        process = self.start(*arguments, **environment)
        try:
            out, err = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
        finished = Finished(process.returncode, out, err, time.monotonic() - started)
        assert finished.code == code, f"{arguments}\n{out}\n{err}\n{self.read_log()}"
        assert "Traceback" not in out + err
        return finished

    def run_json(self, *arguments: str | Path, code: int = 0, **environment: str) -> Any:
        return self.run(*arguments, "--json", code=code, **environment).read_json()

    # What goes in

    def write_rows(self, name: str, rows: Sequence[Mapping[str, Any]]) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        return path

    def write_task(self, name: str, **sections: Any) -> Path:
        """Write a task file; without more it is a quick classification on rows of its own."""
        document = {
            "name": name,
            "kind": "text-classification",
            "base": {"model": str(self.base)},
            "data": {"source": f"{name}.jsonl", "max_length": 16, "split": {"validation": 0.2, "test": 0.2}},
            "method": {"name": "lora", "r": 2, "targets": ["query", "value"]},
            "train": {"epochs": 1, "batch_size": 16, "learning_rate": 0.01},
        }
        # A few rows and steps tell nothing from luck, and most of these tasks are to be promoted.
        gate = {"minimum_rows": 1, "baseline": "none", **sections.pop("gate", {})}
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(document | sections | {"gate": gate}), "utf-8")
        source = self.folder / f"{name}.jsonl"
        if "data" not in sections and not source.exists():
            self.write_rows(source.name, make_rows())
        return path

    # What comes out

    def list_runs(self) -> list[Path]:
        runs = self.home / "runs"
        return sorted(runs.iterdir()) if runs.exists() else []

    def read_log(self) -> str:
        logs = [run / "pipeline.log" for run in self.list_runs()]
        return logs[-1].read_text("utf-8", "replace")[-6000:] if logs and logs[-1].exists() else ""

    def read_outcome(self, task: str, step: str) -> dict[str, Any] | None:
        """Return what a step of a task left in the newest run."""
        path = self.store / "runs" / self.list_runs()[-1].name / "tasks" / task / f"{step}.json"
        return json.loads(path.read_text("utf-8")) if path.exists() else None

    def list_adapters(self) -> list[str]:
        """Return the adapters that exist: those with a manifest."""
        return sorted(path.parent.name for path in self.store.glob("adapters/*/manifest.json"))

    def list_processes(self) -> list[int]:
        """Return the processes that work for this LORRY_HOME."""
        wanted = f"LORRY_HOME={self.home}".encode()
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit() and int(folder.name) != os.getpid():
                try:
                    variables = (folder / "environ").read_bytes().split(b"\0")
                except OSError:
                    continue
                if wanted in variables:
                    found.append(int(folder.name))
        return found

    def wait_until(self, condition: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
        deadline = time.monotonic() + patience
        while not condition():
            assert time.monotonic() < deadline, f"{what}: not within {patience} s\n{self.read_log()}"
            time.sleep(0.05)

    def check_sound(self) -> None:
        """Nothing runs any more, and nothing in the store is half-written."""
        self.wait_until(lambda: not self.list_processes(), "the run's processes end", 15)
        self.run("verify", "--all")
        scratch = self.store / ".scratch"
        assert not scratch.exists() or not list(scratch.iterdir())


def make_rows(count: int = 160, seed: int = 0) -> list[dict[str, Any]]:
    """Return rows about good and bad things, with a class and a rating."""
    chance = random.Random(seed)  # noqa: S311
    rows = []
    for number in range(count):
        is_good = chance.random() < 0.5
        word = chance.choice(["good", "great", "fine"] if is_good else ["bad", "awful", "poor"])
        thing, very = chance.choice(["film", "food", "service", "place"]), chance.choice(["very", "really"])
        text = f"the {thing} was {very} {word} {number}"
        rating = (2.0 if is_good else -2.0) + chance.random()
        rows.append({"text": text, "label": "good" if is_good else "bad", "rating": rating})
    return rows


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "base"
    made = subprocess.run(
        [sys.executable, "-c", MAKE_BASE, folder], capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    return folder


@pytest.fixture(scope="session")
def rows() -> Callable[..., list[dict[str, Any]]]:
    return make_rows


@pytest.fixture(scope="session")
def make_workspace(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Workspace]:
    return lambda name: Workspace(tmp_path_factory.mktemp(name), tiny_base)


@pytest.fixture
def workspace(make_workspace: Callable[[str], Workspace]) -> Workspace:
    return make_workspace("workspace")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """A folder of real data sets: LORRY_TEST_DATA."""
    folder = os.environ.get("LORRY_TEST_DATA")
    if not folder:
        pytest.skip("LORRY_TEST_DATA names no folder of data sets")
    return Path(folder)


@pytest.fixture
def make_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts disks of a size of its own, such as ``28k``; needs the right to mount."""
    disks: list[Path] = []

    def make(size: str) -> Path:
        folder = tmp_path / f"disk{len(disks)}"
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
        if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:  # noqa: PLW1510
            pytest.skip("a small disk cannot be mounted here: that needs root and CAP_SYS_ADMIN")
        disks.append(folder)
        return folder

    yield make
    for folder in disks:
        subprocess.run(["umount", "--lazy", folder], check=True)
