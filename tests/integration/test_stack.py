"""``make stack``: three servers that keep what they are told, and a command that ends no others."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lorry_registry.errors import ConflictError, MissingExtraError, UsageError
from lorry_stack.credentials import Credentials
from lorry_stack.options import RequestedOptions, StackOptions, choose_options
from lorry_stack.ports import find_free_ports, is_free
from lorry_stack.processes import ProcessRecord, read_records, write_records
from lorry_stack.stack import NAMES, Stack, build_variables, format_variables
from lorry_stack.stack_layout import Layout

PROGRAM = Path(__file__).parents[2] / "infra" / "stack"
USUAL = {"s3_port": 8333, "postgresql_port": 5433, "mlflow_port": 5000}


@pytest.fixture
def sleeper(tmp_path: Path) -> ProcessRecord:
    """Return a process that only a kill ends, with a child in the same session."""
    script = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen(['sleep', '600'])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    environment = {"PATH": os.environ["PATH"]}
    record = ProcessRecord.start(
        [sys.executable, "-c", script], folder=tmp_path, log=tmp_path / "log", environment=environment
    )
    while not (tmp_path / "log").read_text("utf-8").endswith("\n"):
        time.sleep(0.01)
    return record


def is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for the system, which takes a moment to end what was killed."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# Processes


def test_a_process_that_does_not_end_is_killed_with_its_children(
    sleeper: ProcessRecord, tmp_path: Path
) -> None:
    child = int((tmp_path / "log").read_text("utf-8"))
    assert sleeper.is_running()
    assert is_there(child)
    sleeper.end(signal.SIGTERM, 0.3)
    assert not sleeper.is_running()
    wait_until(lambda: not is_there(child))


def test_children_of_a_killed_process_are_found(sleeper: ProcessRecord, tmp_path: Path) -> None:
    child = int((tmp_path / "log").read_text("utf-8"))
    os.kill(sleeper.pid, signal.SIGKILL)
    os.waitpid(sleeper.pid, 0)
    assert is_there(child)
    sleeper.end(signal.SIGTERM, 0.3)
    wait_until(lambda: not is_there(child))


def test_another_process_of_the_same_number_is_left_alone(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as somebodys:
        record = ProcessRecord(pid=somebodys.pid, began="another boot 123", mark=str(tmp_path))
        assert not record.is_running()
        record.end(signal.SIGTERM, 0.3)
        assert somebodys.poll() is None
        somebodys.kill()


# Options


def test_usual_ports_give_way_and_chosen_ones_do_not() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert not is_free(port)
        with pytest.raises(ConflictError, match=f"something listens at port {port} already"):
            choose_options(RequestedOptions(mlflow_port=port), None)
        before = StackOptions(**(USUAL | {"mlflow_port": port}))
        assert choose_options(RequestedOptions(), before).mlflow_port != port
    free = find_free_ports(3)
    chosen = choose_options(RequestedOptions(), StackOptions(**dict(zip(USUAL, free, strict=True))))
    assert [chosen.s3_port, chosen.postgresql_port, chosen.mlflow_port] == free


def test_the_way_of_artifacts_stays() -> None:
    free = dict(zip(USUAL, find_free_ports(3), strict=True))
    before = StackOptions(artifacts="direct", login="basic", **free)
    with pytest.raises(UsageError, match="its experiments remember that"):
        choose_options(RequestedOptions(artifacts="proxied"), before)
    again = choose_options(RequestedOptions(login="none"), before)
    assert (again.artifacts, again.login) == ("direct", "none")
    assert RequestedOptions(login="none", artifacts="direct").list_differences(before) == ["login"]


# Passwords


def test_passwords_are_made_once_and_for_their_owner(tmp_path: Path) -> None:
    path = tmp_path / "credentials.json"
    made = Credentials.read_or_make(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Credentials.read_or_make(path) == made
    values = list(made.model_dump().values())
    assert len(set(values)) == len(values)
    assert min(map(len, values)) >= 20
    assert set(values).isdisjoint(Credentials().model_dump().values())
    path.write_text(json.dumps({"s3_key": "geheim", "x": 1}), "utf-8")
    with pytest.raises(UsageError) as caught:
        Credentials.read_or_make(path)
    assert "geheim" not in str(caught.value)


def test_a_missing_program_is_named_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    monkeypatch.setattr("lorry_stack.postgresql._DEBIAN", tmp_path)
    with pytest.raises(MissingExtraError, match="apt-get install postgresql"):
        Stack(tmp_path / "stack", {}).start(RequestedOptions())
    assert sorted(path.name for path in (tmp_path / "stack").iterdir()) == ["lock"]


def test_nothing_runs_in_a_folder_that_is_not_there(tmp_path: Path) -> None:
    nothing = Stack(tmp_path / "none", {})
    assert nothing.stop() == []
    with pytest.raises(UsageError, match="no stack was started in this folder"):
        nothing.list_variables()
    assert not (tmp_path / "none").exists()


# The whole


@pytest.mark.exhaustive
def test_a_life(make_stack: Callable[..., Stack], tmp_path: Path) -> None:
    stack = make_stack(starts=False)
    program = [sys.executable, "-m", "lorry_stack", "--folder", str(stack.layout.folder)]
    free = find_free_ports(3)
    ports = [f"--{name.replace('_', '-')}={port}" for name, port in zip(USUAL, free, strict=True)]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(PROGRAM), os.environ.get("PYTHONPATH", "")])
    }

    def run(*arguments: str, code: int = 0) -> str:
        finished = subprocess.run(
            [*program, *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert finished.returncode == code, finished.stdout + finished.stderr
        return finished.stdout + finished.stderr

    # Two at once start one stack.
    first, second = (
        subprocess.Popen([*program, "start", *ports], cwd=tmp_path, env=environment, stdout=subprocess.PIPE)
        for _ in range(2)
    )
    said = [process.communicate(timeout=300)[0].decode() for process in (first, second)]
    assert [process.returncode for process in (first, second)] == [0, 0]
    assert sorted(text.partition(";")[0] for text in said) == ["running already", "started"]
    assert stack.list_running() == list(NAMES)
    credentials = Credentials.read_or_make(stack.layout.credentials)
    secrets = list(credentials.model_dump().values())
    check_privacy(stack, secrets, said)

    variables = stack.list_variables()
    assert run("env") == stack.layout.variables.read_text("utf-8")
    with_data(variables, "write")
    refused = run("start", "--login", "basic", code=UsageError.exit_code)
    assert "the stack runs with other options: login" in refused

    # One that was killed comes back, the others are not touched.
    before = read_records(stack.layout.processes)
    os.kill(before["mlflow"].pid, signal.SIGKILL)
    wait_until(lambda: stack.list_running() == ["seaweedfs", "postgresql"])
    assert "starting mlflow" in run("start")
    after = read_records(stack.layout.processes)
    assert {name for name in NAMES if before[name] != after[name]} == {"mlflow"}

    # Stopped and started again, everything that was written is there.
    assert "stopped mlflow, postgresql, seaweedfs" in run("stop")
    assert run("stop") == "nothing runs here\n"
    assert [record for record in after.values() if record.is_running()] == []
    run("start")
    assert stack.list_variables() == variables
    with_data(variables, "read")
    run("stop")


def check_privacy(stack: Stack, secrets: list[str], said: list[str]) -> None:
    """Nobody else reads a password: in a file, on a command line, in what was printed."""
    for path in stack.layout.folder.iterdir():
        mode = stat.S_IMODE(path.stat().st_mode)
        if path.is_dir():
            assert mode == 0o700, path
        elif any(secret in path.read_text("utf-8", "replace") for secret in secrets):
            assert mode == 0o600, path
            assert path.suffix != ".log", path
    lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    for secret in secrets:
        assert secret not in "".join(said)
        assert not [line for line in lines if secret.encode() in line]


def with_data(variables: dict[str, str], verb: str) -> None:
    """Write something to each server, or read it there."""
    script = (
        "import sys, warnings; warnings.simplefilter('ignore')\n"
        "from mlflow.tracking import MlflowClient\n"
        "from lorry_registry.stores import open_store\n"
        "store, client = open_store(sys.argv[1]), MlflowClient()\n"
        "if sys.argv[2] == 'write':\n"
        "    store.create('tasks/x', b'kept')\n"
        "    client.log_text(client.create_run(client.create_experiment('kept')).info.run_id, 'kept', 'x')\n"
        "assert store.read('tasks/x').content == b'kept'\n"
        "(run,) = client.search_runs([client.get_experiment_by_name('kept').experiment_id])\n"
        "assert open(client.download_artifacts(run.info.run_id, 'x')).read() == 'kept'\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    done = subprocess.run(
        [sys.executable, "-c", script, variables["LORRY_STORE"], verb],
        env=environment | variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_what_was_recorded_is_read_again(tmp_path: Path) -> None:
    records = {"mlflow": ProcessRecord(pid=1, began="x", mark="y")}
    write_records(tmp_path / "processes.json", records)
    assert read_records(tmp_path / "processes.json") == records
    assert read_records(tmp_path / "none") == {}


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="it cannot be written: Not a directory"):
        Stack(tmp_path / "file" / "stack", {}).start(RequestedOptions())


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        (".stack", "make stack-stop"),
        ("other", "make stack-stop STACK=other"),
        ("/srv/a stack", "make stack-stop STACK='/srv/a stack'"),
    ],
)
def test_a_suggested_command_names_the_folder(
    folder: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Layout(Path(folder).absolute()).format_make("stack-stop") == expected


def test_a_stack_that_never_was_started_names_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        Stack(Path("other"), {}).read_options()
    assert caught.value.todo == "run: make stack STACK=other"


def test_variables_of_another_stack_are_unset() -> None:
    """A shell that used a stack with logins uses one without."""
    options = {"s3_port": 1, "postgresql_port": 2, "mlflow_port": 3}
    with_login, without = (
        build_variables(StackOptions.model_validate(options | {"login": login}), Credentials())
        for login in ("basic", "none")
    )
    script = format_variables(with_login) + format_variables(without) + "env -0"
    environment = {"PATH": os.environ["PATH"], "MLFLOW_REGISTRY_URI": "http://elsewhere"}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=True)
    found = dict(entry.split("=", 1) for entry in done.stdout.split("\0") if entry)
    assert {name: found[name] for name in found if name.startswith(("AWS_", "MLFLOW_", "LORRY_"))} == without
