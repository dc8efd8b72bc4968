import shutil
from pathlib import Path

import pytest

from llmtrain.config.loader import load_config
from llmtrain.errors import ConfigError, DataError, ParallelError
from llmtrain.process.world import World
from llmtrain.stages import pretrain
from llmtrain.stages.pretrain import launch_pretrain, print_plan, run_rank
from llmtrain.stages.run_folder import locked_run_folder


@pytest.fixture(autouse=True)
def keep_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logging of the test run stays as it is."""
    monkeypatch.setattr(pretrain, "configure_logging", lambda world: None)


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], int, Path]]:
    """Launches instead of ranks; all end well."""
    seen: list[tuple[list[str], int, Path]] = []

    def launch(arguments: list[str], num_ranks: int, log_folder: Path) -> int:
        seen.append((arguments, num_ranks, log_folder))
        return 0

    monkeypatch.setattr(pretrain, "run_ranks_here", launch)
    return seen


def test_a_plan_shows_keys_with_origins_and_derived_numbers_and_writes_nothing(
    own_project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print_plan(load_config([Path("tiny.yaml")], ["run.seed=5"]), 4)
    text = capsys.readouterr().out
    rows = [line.split() for line in text.splitlines()]
    assert ["run.seed", "5", "command", "line"] in rows
    assert ["parallel.zero_stage", "1", "default"] in rows
    assert any(row[:2] == ["batch.micro_batch_size", "2"] and row[2].startswith("tiny.yaml:") for row in rows)
    assert "4 = data 4 x tensor 1 x pipeline 1, ZeRO stage 1" in text
    assert "8 sequences x 16 tokens = 128 tokens (2 x 4 ranks x 1 accumulation steps)" in " ".join(text.split())
    assert "10 steps, 1,280 tokens" in text
    assert "400 (padded to 448)" in text
    assert not Path("runs").exists()


def test_a_plan_before_the_data_takes_the_tokenizer_that_would_be_trained(
    own_project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree("data")
    print_plan(load_config([Path("tiny.yaml")], ["corpus.tokenizer.vocab_size=500"]), 1)
    assert "500 (padded to 512)" in capsys.readouterr().out
    with pytest.raises(
        ConfigError, match=r"data/tiny/tokenizer: no tokenizer here.* add model\.vocab_size=N; to train"
    ):
        print_plan(load_config([Path("tiny.yaml")], ["corpus=null"]), 1)
    print_plan(load_config([Path("tiny.yaml")], ["corpus=null", "model.vocab_size=500"]), 1)


def test_ranks_are_started_on_the_resolved_configuration(
    own_project: Path, launches: list[tuple[list[str], int, Path]], capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = load_config([Path("tiny.yaml")], ["run.seed=5"])
    assert launch_pretrain(loaded, 2) == 0
    assert launches == [(["pretrain", "runs/tiny/config.yaml"], 2, Path("runs/tiny/logs"))]
    assert load_config([Path("runs/tiny/config.yaml")]).config == loaded.config
    assert "2 = data 2 x tensor 1 x pipeline 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "num_ranks", "kind", "message"),
    [
        (
            [],
            3,
            ConfigError,
            r"is not a multiple of batch\.micro_batch_size 2 x 3 data-parallel ranks = 6\. Start 1, 2 or",
        ),
        (["corpus=null", "model.vocab_size=7"], 1, ConfigError, r"model\.vocab_size = 7 differs from the tokenizer in"),
        (
            ["training.train_steps=null", "training.train_tokens=100"],
            1,
            ConfigError,
            r"exceed the 1 steps that training",
        ),
        (["corpus=null", "data.folder=none"], 1, DataError, r"tokenizer none/tokenizer: cannot be read"),
        (["corpus=null", "data.sources={web: {}}"], 1, DataError, r"no train shards of web\. There are: email, json"),
    ],
)
def test_what_cannot_train_is_refused_before_any_rank_and_any_folder(
    overrides: list[str],
    num_ranks: int,
    kind: type[Exception],
    message: str,
    own_project: Path,
    launches: list[tuple[list[str], int, Path]],
) -> None:
    with pytest.raises(kind, match=message):
        launch_pretrain(load_config([Path("tiny.yaml")], overrides), num_ranks)
    assert launches == []
    assert not Path("runs").exists()


def test_the_folder_of_another_or_of_a_running_run_is_refused_before_any_rank(
    own_project: Path, launches: list[tuple[list[str], int, Path]]
) -> None:
    loaded = load_config([Path("tiny.yaml")])
    assert launch_pretrain(loaded, 1) == 0
    launches.clear()
    with pytest.raises(ConfigError, match=r"(?s)runs/tiny: holds a run .*  run\.seed: 7 there, 8 here.*Choose another"):
        launch_pretrain(load_config([Path("tiny.yaml")], ["run.seed=8"]), 1)
    with (
        locked_run_folder(loaded.config.run.folder),
        pytest.raises(ConfigError, match=r"runs/tiny: a run is using this folder \(process \d+ on .*\)\. Wait for it"),
    ):
        launch_pretrain(loaded, 1)
    assert launches == []
    assert launch_pretrain(loaded, 1) == 0


def test_a_rank_checks_data_and_plan_before_it_joins_the_others(own_project: Path) -> None:
    config = load_config([Path("tiny.yaml")]).config
    world = World(0, 3, 0, 3, "127.0.0.1", 1)  # nobody is at that port
    with pytest.raises(ConfigError, match="3 data-parallel ranks = 6"):
        run_rank(config, world)
    shutil.rmtree("data")
    with pytest.raises(DataError, match="cannot be read"):
        run_rank(config, world)


@pytest.mark.parametrize(
    ("overrides", "seconds"),
    [([], 600), (["watchdog.start_seconds=60"], 30), (["watchdog.start_seconds=null"], 600)],
)
def test_ranks_that_do_not_meet_say_so_before_the_watchdog_ends_them(
    own_project: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str], seconds: float
) -> None:
    seen: list[float] = []

    def join(world: World, timeout_seconds: float, meeting_seconds: float) -> None:
        seen.append(meeting_seconds)
        raise ParallelError("nobody came")

    monkeypatch.setattr("llmtrain.parallel.start.start_distributed", join)
    with pytest.raises(ParallelError, match="nobody came"):
        run_rank(load_config([Path("tiny.yaml")], overrides).config, World())
    assert seen == [seconds]
