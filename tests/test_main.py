"""The one door: help, exit codes, messages without traceback, and nothing heavy before it is needed."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from llmtrain import __main__ as door
from llmtrain import errors
from llmtrain.config.schema import build_json_schema
from llmtrain.errors import LlmtrainError
from tests.helpers.configs import write_tiny_config

EXIT_CODES = {
    errors.LlmtrainError: 1,
    errors.LostRankError: 1,
    errors.ConfigError: 2,
    errors.MachineError: 3,
    errors.ParallelError: 3,
    errors.DataError: 4,
    errors.CheckpointError: 5,
    errors.MemoryExhaustedError: 6,
    errors.DivergenceError: 17,
    errors.HangError: 124,
}
HEAVY = ("torch", "deepspeed", "transformers", "datasets", "mlflow", "numpy", "sentencepiece", "data_pipelines.prepare")


def list_commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command and group of commands by its words on the command line."""
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from list_commands(inner, (*path, name))


def list_all() -> dict[tuple[str, ...], Any]:
    return dict(list_commands(typer.main.get_command(door.app)))


def call(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> object:
    """Run the door in this process; its exit code."""
    monkeypatch.setattr(sys, "argv", ["llmtrain", *arguments])
    with pytest.raises(SystemExit) as caught:
        door.main()
    return caught.value.code


def test_every_command_and_every_parameter_has_help() -> None:
    commands = list_all()
    assert {("run",), ("pretrain",), ("data", "prepare"), ("checkpoint", "verify"), ("doctor",)} <= commands.keys()
    assert [path for path, command in commands.items() if not (command.help or "").strip().endswith(".")] == []
    bare = [
        (path, parameter.name)
        for path, command in commands.items()
        for parameter in command.params
        if parameter.name not in ("help", "install_completion", "show_completion")
        and not getattr(parameter, "help", None)
    ]
    assert bare == []


def test_help_and_mistakes_come_without_heavy_imports(tmp_path: Path) -> None:
    config = str(write_tiny_config(tmp_path))
    mistakes = [
        ["pretrain", config, "optimizer.learning_rte=1"],
        ["run", config, "batch.micro_batch_size=3"],
        ["data", "prepare", config, "zzz=1"],
        ["nonsense"],
    ]
    good = [["config", "show", config], ["config", "schema"]]
    calls = [*mistakes, *good, *([*path, "--help"] for path in list_all())]
    code = (
        "import json, sys\n"
        "from llmtrain.__main__ import main\n"
        "codes = []\n"
        f"for arguments in {calls!r}:\n"
        "    sys.argv = ['llmtrain', *arguments]\n"
        "    try:\n"
        "        main()\n"
        "    except SystemExit as exit:\n"
        "        codes.append(exit.code or 0)\n"
        f"print(json.dumps([codes, [name for name in {HEAVY!r} if name in sys.modules]]))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    codes, heavy = json.loads(result.stdout.splitlines()[-1])
    assert codes == [2] * len(mistakes) + [0] * (len(calls) - len(mistakes))
    assert heavy == []
    assert "Traceback" not in result.stderr
    assert "Did you mean 'optimizer.learning_rate'?" in result.stderr


def test_the_configuration_is_shown_with_origins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, overlay = write_tiny_config(tmp_path), tmp_path / "overlay.yaml"
    overlay.write_text("batch: {micro_batch_size: 4}\n")
    assert call(["config", "show", str(path), "run.seed=5", "-c", str(overlay)], monkeypatch) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines if line.startswith("run.seed")] == [
        ["run.seed:", "5", "#", "command", "line"]
    ]
    assert f"batch.micro_batch_size: 4 # {overlay}:1" in [" ".join(line.split()) for line in lines]
    assert "parallel.zero_stage: 1 # default" in [" ".join(line.split()) for line in lines]


def test_the_schema_is_printed_as_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["config", "schema"], monkeypatch) == 0
    assert json.loads(capsys.readouterr().out) == build_json_schema()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["pretrain"], "Missing argument 'CONFIG'"),
        (["pretrain", "x.yaml", "--nproc", "0"], "'--nproc'"),
        (["generate", "runs/x"], "Missing option '--prompt'"),
        (["pretrain", "absent.yaml"], "absent.yaml: cannot read the configuration"),
    ],
)
def test_a_wrong_command_line_exits_with_2(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(arguments, monkeypatch) == 2
    assert message in capsys.readouterr().err


def test_every_error_class_has_its_documented_exit_code() -> None:
    classes = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, LlmtrainError)}
    assert {kind: kind.exit_code for kind in classes} == EXIT_CODES
    assert errors.EXIT_SAVED_AFTER_SIGNAL == 75


@pytest.mark.parametrize("kind", EXIT_CODES, ids=lambda kind: kind.__name__)
def test_an_error_of_the_user_is_printed_without_traceback(
    kind: type[LlmtrainError], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for message, separator in (("where: what is wrong.", " "), ("one: wrong.\ntwo: wrong.", "\n")):

        def fail(message: str = message) -> None:
            raise kind(message)

        monkeypatch.setattr(door, "app", fail)
        assert call([], monkeypatch) == EXIT_CODES[kind]
        prefix = "configuration" if kind is errors.ConfigError else "llmtrain"
        assert capsys.readouterr().err == f"{prefix}:{separator}{message}\n"


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(door, "app", fail)
    with pytest.raises(ZeroDivisionError):
        door.main()
