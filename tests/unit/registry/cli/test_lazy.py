import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from lorry_registry.cli import LazyCommand, LazyGroup
from lorry_registry.cli.lazy import run_cli
from lorry_registry.errors import ConflictError, StoreError

_COMMANDS = """
import click, sys, time
from lorry_registry.cli.error_output import note_json_asked
from lorry_registry.errors import ConflictError

print("imported", file=sys.stderr)

@click.command("fail")
def fail():
    raise ConflictError("it is taken", where="here", todo="wait")

@click.command("wait")
def wait():
    print("waiting", flush=True)
    time.sleep(60)

@click.command("flood")
def flood():
    for number in range(100000):
        click.echo(f"line {number}")

@click.command("code")
@click.pass_context
def code(context):
    context.exit(9)

@click.command("needs")
def needs():
    import a_library_that_is_not_installed.part

@click.command("crash")
def crash():
    raise ValueError("a bug")

@click.command("arrow")
def arrow():
    click.echo("v1 \\u2192 v2")

@click.command("colour")
def colour():
    click.secho("red", fg="red", color=None)
    raise ConflictError("it is taken")

@click.command("full")
@click.option("--json", "as_json", is_flag=True, is_eager=True, callback=note_json_asked)
def full(as_json):
    with open("/dev/full", "w") as stream:
        stream.write("text")

not_a_command = 3
"""

_MAIN = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from lorry_registry.cli import LazyCommand, LazyGroup, run_cli
names = ("fail", "wait", "flood", "code", "needs", "crash", "arrow", "colour", "full")
commands = [LazyCommand(name, f"commands:{name}", f"Does {name}.") for name in names]
run_cli(LazyGroup(name="lorry", lazy_commands=commands))
"""


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "commands.py").write_text(_COMMANDS, "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "commands", raising=False)
    return tmp_path


def _build(*names: str, **attributes: Any) -> LazyGroup:
    return LazyGroup(
        name="lorry",
        lazy_commands=[
            LazyCommand(
                name, f"commands:{name}", f"Does {name}.", "Reading" if index % 2 else "Writing", "train"
            )
            for index, name in enumerate(names)
        ],
        **attributes,
    )


def _start(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", _MAIN, str(folder), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_help_lists_the_commands_in_sections_without_importing_them(commands: Path) -> None:
    group = _build("fail", "wait", "code")
    group.add_command(click.Command("plain", help="Is not lazy."))
    group.add_command(click.Command("secret", hidden=True))
    result = CliRunner().invoke(group, ["--help"])
    assert result.exit_code == 0
    assert "commands" not in sys.modules
    assert result.stdout.endswith(
        "Writing:\n  fail   Does fail.\n  code   Does code.\n\nReading:\n  wait   Does wait.\n\n"
        "Commands:\n  plain  Is not lazy.\n"
    )


def test_an_error_of_ours_is_a_message_and_a_code(commands: Path) -> None:
    result = CliRunner().invoke(_build("fail"), ["fail"])
    assert result.exit_code == ConflictError.exit_code
    assert result.stdout == ""
    assert result.stderr.endswith("error: here: it is taken\n  -> wait\n")


def test_an_error_of_python_is_a_bug_and_stays_one(commands: Path) -> None:
    assert isinstance(CliRunner().invoke(_build("crash"), ["crash"]).exception, ValueError)


def test_a_missing_library_says_what_to_install(commands: Path) -> None:
    result = CliRunner().invoke(_build("needs"), ["needs"])
    assert result.exit_code == 11
    assert "this command needs 'a_library_that_is_not_installed'" in result.stderr
    assert "pip install 'lorry[train]'" in result.stderr
    missing = LazyGroup(
        name="lorry", lazy_commands=[LazyCommand("x", "another_missing_library:x", "Is not there.")]
    )
    assert "pip install 'lorry[train,pipelines]'" in CliRunner().invoke(missing, ["x"]).stderr


def test_a_module_of_ours_that_is_missing_is_a_bug(commands: Path) -> None:
    group = LazyGroup(
        name="lorry", lazy_commands=[LazyCommand("x", "lorry_registry.nowhere:x", "Is not there.")]
    )
    assert isinstance(CliRunner().invoke(group, ["x"]).exception, ModuleNotFoundError)
    group = LazyGroup(
        name="lorry", lazy_commands=[LazyCommand("x", "commands:not_a_command", "Is a number.")]
    )
    assert isinstance(CliRunner().invoke(group, ["x"]).exception, TypeError)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["fial"], "There is no command 'fial'. Did you mean 'fail'?"),
        (["zzzzz"], "There is no command 'zzzzz'. See: lorry --help"),
        (["--nothing"], "No such option"),
    ],
)
def test_an_unknown_command_gets_a_suggestion(commands: Path, typed: list[str], said: str) -> None:
    result = CliRunner().invoke(_build("fail", "wait"), typed)
    assert result.exit_code == 2
    assert said in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code"), [(["code"], 9), (["fail"], 8), (["x"], 2), (["--help"], 0), ([], 2)]
)
def test_the_process_ends_with_the_code(commands: Path, arguments: list[str], code: int) -> None:
    with pytest.raises(SystemExit) as caught:
        run_cli(_build("code", "fail"), arguments=arguments)
    assert caught.value.code == code


def _raise(error: BaseException) -> Callable[[], None]:
    def callback() -> None:
        raise error

    return callback


@pytest.mark.parametrize(
    ("error", "code", "said"), [(KeyboardInterrupt(), 130, "interrupted"), (click.Abort(), 1, "aborted")]
)
def test_an_interruption_has_a_code_of_its_own(
    capsys: pytest.CaptureFixture[str], error: BaseException, code: int, said: str
) -> None:
    group = LazyGroup(name="lorry")
    group.add_command(click.Command("x", callback=_raise(error)))
    with pytest.raises(SystemExit) as caught:
        run_cli(group, arguments=["x"])
    assert caught.value.code == code
    assert said in capsys.readouterr().err


def test_ctrl_c_in_a_real_process_ends_with_130(commands: Path) -> None:
    process = _start(commands, "wait")
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted" in errors
    assert "Traceback" not in errors


def test_a_closed_pipe_is_quiet(commands: Path) -> None:
    process = _start(commands, "flood")
    assert process.stdout is not None
    assert process.stdout.readline() == "line 0\n"
    process.stdout.close()
    assert process.stderr is not None
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=30) == 1
    assert errors == "imported\n"


def test_a_terminal_that_cannot_show_a_character_is_no_reason_to_fail(commands: Path) -> None:
    environment = os.environ | {"PYTHONIOENCODING": "latin-1"}
    command = [sys.executable, "-c", _MAIN, str(commands), "arrow"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "v1 ? v2\n")


@pytest.mark.parametrize(
    ("environment", "is_coloured"),
    [({"TERM": "xterm"}, True), ({"TERM": "xterm", "NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
)
def test_the_environment_decides_about_colours(
    commands: Path, environment: dict[str, str], is_coloured: bool
) -> None:
    primary, secondary = os.openpty()
    inherited = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "TERM")}
    process = subprocess.Popen(
        [sys.executable, "-c", _MAIN, str(commands), "colour"],
        env=inherited | environment,
        stdin=secondary,
        stdout=secondary,
        stderr=secondary,
    )
    os.close(secondary)
    shown = b""
    # A terminal whose other end is closed cannot be read.
    with contextlib.suppress(OSError):
        while part := os.read(primary, 1000):
            shown += part
    os.close(primary)
    assert process.wait(60) == ConflictError.exit_code
    assert b"red" in shown
    assert b"error: " in shown
    assert (b"\x1b[" in shown) == is_coloured


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_said_and_no_defect(commands: Path) -> None:
    result = CliRunner().invoke(_build("full"), ["full", "--json"])
    assert result.exit_code == StoreError.exit_code
    assert "No space left on device" in result.stderr
    assert "free space on that disk" in result.stderr
    assert json.loads(result.stdout)["error"]["kind"] == "StoreError"


def test_completion_offers_commands_without_importing_them(commands: Path) -> None:
    completed = subprocess.run(
        [sys.executable, "-c", _MAIN, str(commands), ""],
        env=os.environ | {"_LORRY_COMPLETE": "bash_complete", "COMP_WORDS": "lorry co", "COMP_CWORD": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert completed.stdout.splitlines() == ["plain,code", "plain,colour"]
    assert "imported" not in completed.stderr
