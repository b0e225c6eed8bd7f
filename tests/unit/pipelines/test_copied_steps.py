"""Steps that begin as copies of one process: their surroundings, their ends, and what is done without it."""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lorry_pipelines.local import copied_steps
from lorry_pipelines.local.copied_steps import Starter, copy_steps, open_starter, read_command, run_copied
from lorry_pipelines.local.step_starter import StepRequest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are copied on Linux")

# What kfp makes of a component, with a body of its own.
_SCRIPT = (
    'program_path=$(mktemp -d)\n\nprintf "%s" "$0" > "$program_path/ephemeral_component.py"\n'
    "_KFP_RUNTIME=true python3 -m kfp.dsl.executor_main                         --component_module_path"
    '                         "$program_path/ephemeral_component.py"                         "$@"\n'
)
_TORCH = (
    "import sys; assert 'torch' in sys.modules; import torch; torch.ones(300, 300) @ torch.ones(300, 300)"
)


def make_request(body: str, *, step: str = "prepare_data", **environment: str) -> StepRequest:
    """Return a request for a step that does nothing but run a few lines."""
    source = f"def {step}():\n    {body}\n"
    return StepRequest(
        step=step,
        source=source,
        arguments=(
            "--executor_input",
            '{"inputs": {}, "outputs": {"outputFile": "/dev/null"}}',
            "--function_to_execute",
            step,
        ),
        environment={"PATH": os.environ["PATH"], **environment},
    )


@pytest.fixture(scope="module")
def starter() -> Iterator[Starter]:
    with open_starter({**os.environ, "LEFT_OVER": "of the starter"}) as opened:
        assert opened is not None
        yield opened


def test_a_step_has_its_environment_its_output_and_no_input(
    starter: Starter, capsys: pytest.CaptureFixture[str]
) -> None:
    body = "import os, sys; print(sorted(os.environ), sys.stdin.read() == '', os.getpid() != os.getppid())"
    request = make_request(body, LORRY_HOME="/home/of/lorry")
    assert run_copied(starter.requests, request) == 0
    out = capsys.readouterr().out
    assert "'LORRY_HOME'" in out
    assert "LEFT_OVER" not in out
    assert "True True" in out


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ("import sys; sys.exit(3)", 3, ""),
        ("import sys; sys.exit('no more')", 1, ""),
        ("raise ValueError('this is wrong')", 1, "ValueError: this is wrong"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL, ""),
        ("import atexit; atexit.register(print, 'done at the end')", 0, "done at the end"),
        (
            "from threading import Timer; Timer(0.3, print, ['late']).start()",
            0,
            "late",
        ),
    ],
)
def test_a_step_ends_as_any_process(
    starter: Starter, capsys: pytest.CaptureFixture[str], body: str, code: int, said: str
) -> None:
    assert run_copied(starter.requests, make_request(body)) == code
    assert said in capsys.readouterr().out


def test_nothing_of_one_step_reaches_another(starter: Starter, capsys: pytest.CaptureFixture[str]) -> None:
    draw = "import json, numpy, random; json.mark = 1; print('drew', random.random(), numpy.random.random())"
    for _ in range(2):
        assert run_copied(starter.requests, make_request(draw)) == 0
    drawn = [line for line in capsys.readouterr().out.splitlines() if line.startswith("drew")]
    assert len(set(drawn)) == 2
    assert run_copied(starter.requests, make_request("import json; assert not hasattr(json, 'mark')")) == 0


def test_steps_run_side_by_side_with_libraries_imported(starter: Starter, tmp_path: Path) -> None:
    # Each waits for the other one's file: one after the other they would never end.
    bodies = [
        f"{_TORCH}; import time, pathlib; pathlib.Path({str(tmp_path / mine)!r}).touch();"
        f" [time.sleep(0.05) for _ in range(600) if not pathlib.Path({str(tmp_path / other)!r}).exists()];"
        f" assert pathlib.Path({str(tmp_path / other)!r}).exists()"
        for mine, other in (("a", "b"), ("b", "a"))
    ]
    codes: list[Any] = []
    threads = [
        threading.Thread(
            target=lambda body: codes.append(
                run_copied(starter.requests, make_request(body, step="finetune"))
            ),
            args=(body,),
        )
        for body in bodies
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert codes == [0, 0]


def is_alive(process: int) -> bool:
    """Return whether a process runs; one whose new parent does not ask for its end stays listed."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_all_steps_end_with_the_starter(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    body = (
        f"import os, time, pathlib; pathlib.Path({str(mark)!r}).write_text(str(os.getpid())); time.sleep(600)"
    )
    codes: list[int | None] = []
    with open_starter(os.environ) as opened:
        assert opened is not None
        thread = threading.Thread(
            target=lambda: codes.append(run_copied(opened.requests, make_request(body)))
        )
        thread.start()
        deadline = time.monotonic() + 60
        while not (mark.exists() and mark.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    thread.join(30)
    assert codes == [1]
    deadline = time.monotonic() + 10
    while is_alive(int(mark.read_text())):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_step_that_cannot_be_copied_is_started_as_kubeflow_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from kfp.local import subprocess_task_handler as handler

    stock: list[Any] = []
    monkeypatch.setattr(
        handler, "run_local_subprocess", lambda command, env: stock.append((command, env)) or 7
    )
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.close()
    command = ["sh", "-ec", _SCRIPT, "def gate(): ...", "--function_to_execute", "gate"]
    with copy_steps(ours.detach(), {}):
        # The starter is gone; and then a command of another form.
        assert handler.run_local_subprocess(command, {"A": "b"}) == 7
        assert handler.run_local_subprocess(["python3", "-m", "other"], None) == 7
    assert [given[0][0] for given in stock] == ["sh", "python3"]


def test_what_kfp_compiles_is_understood(tmp_path: Path) -> None:
    import yaml
    from kfp import compiler

    from lorry_components.steps.gate.component import gate

    compiler.Compiler().compile(gate, str(tmp_path / "gate.yaml"))
    executors = yaml.safe_load((tmp_path / "gate.yaml").read_text())["deploymentSpec"]["executors"]
    container = executors["exec-gate"]["container"]
    # The runner puts its own Python in place of the name.
    command = [part.replace("python3", sys.executable) for part in container["command"][:3]]
    request = read_command([*command, container["command"][3], *container["args"]], {"A": "b"})
    assert request is not None
    assert (request.step, request.environment) == ("gate", {"A": "b"})
    assert "def gate(" in request.source


def test_no_process_is_copied_beside_an_accelerator(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    device = tmp_path / "nvidiactl"
    monkeypatch.setattr(copied_steps, "_ACCELERATORS", (str(device),))
    assert copied_steps.can_copy_processes()
    device.touch()
    assert not copied_steps.can_copy_processes()
    with open_starter(os.environ) as opened:
        assert opened is None
