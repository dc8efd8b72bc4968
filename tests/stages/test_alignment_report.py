"""Verdicts follow from their rules on hand-made numbers; the report shows them with intervals, answers and ancestry."""

import copy
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from llmtrain.posttraining.reward_report import describe_calibration
from llmtrain.posttraining.statistics import describe_difference, describe_mean, describe_wins, wilson_interval
from llmtrain.stages.alignment_report import Verdict, draw_alignment, judge_stages, write_alignment_report
from llmtrain.tracking.run_folder import RunWriter


def make_pretraining(web: float = 2.0, code: float = 3.0) -> dict[str, Any]:
    by_source = {"web": {"loss": web, "bigram": 2.5}, "code": {"loss": code, "bigram": 3.5}}
    return {"run": "r", "validation": {"loss": (web + code) / 2, "bigram": 3.0, "by_source": by_source}}


def make_sft(before: float | None = 4.0, after: float | None = 3.0) -> dict[str, Any]:
    parents = {"model": {"folder": "runs/r/export", "digest": "e" * 64, "stage": None}}
    return {
        "stage": "sft",
        "held_out_loss": {"before": before, "after": after},
        "model_digest": "a" * 64,
        "parents": parents,
    }


def make_accuracy(value: float, pairs: int = 100) -> dict[str, Any]:
    low, high = wilson_interval(value * pairs, pairs)
    return {"value": value, "low": low, "high": high, "pairs": pairs}


def make_reward(
    accuracy: float = 0.8, pairs: int = 100, of_length_alone: float = 0.5, leaked: int = 0
) -> dict[str, Any]:
    rows = make_accuracy(accuracy, pairs)
    held_out = {
        "accuracy": rows,
        "accuracy_by_source": {"sampled": rows},
        "accuracy_by_length": {"chosen_longer": rows},
        "accuracy_of_length_alone": of_length_alone,
        "calibration": describe_calibration([2.0, 1.0, -0.5, 0.0]),
        "reward_length_correlation": -0.25,
    }
    parents = {"model": {"folder": "runs/r/sft/model", "digest": "a" * 64, "stage": "sft"}}
    return {
        "stage": "reward",
        "held_out": held_out,
        "prompts_in_both_parts": leaked,
        "model_digest": "b" * 64,
        "parents": parents,
    }


def make_ppo(proxy: float = 1.0, gold: float | None = 1.0, prompts: int = 44, **changes: Any) -> dict[str, Any]:
    """A run whose measures moved by so much on every held-out prompt, up to some noise."""
    noise = [((7 * i) % 11 - 5) / 20 for i in range(prompts)]
    moved = {"reward": proxy} | ({"gold": gold} if gold is not None else {})
    zeros = [0.1 * value for value in noise]
    history = []
    for step, share, kl in ((0, 0.0, 0.0), (10, 0.5, 2.0), (20, 1.0, 8.0)):
        row: dict[str, Any] = {"step": step, "kl": kl}
        row |= {name: describe_mean([share * move + value for value in noise]) for name, move in moved.items()}
        names = ("ended_fraction", "distinct_1", "distinct_2", "distinct_3", "distinct_responses")
        history.append(row | {"response_tokens": 20.0 + step} | dict.fromkeys(names, 0.5))
    against = {
        name: {
            "difference": describe_difference([move + value for value in noise], zeros),
            "wins": describe_wins([move + value for value in noise], zeros),
        }
        for name, move in moved.items()
    }
    summary = {"stage": "ppo", "stopped_by": None, "before": history[0], "after": history[-1], "against_sft": against}
    parents = {"model": {"folder": "runs/r/sft/model", "digest": "a" * 64, "stage": "sft"}}
    parents["reward model"] = {"folder": "runs/r/reward/model", "digest": "b" * 64, "stage": "reward"}
    return summary | {"history": history, "model_digest": "c" * 64, "parents": parents} | changes


def judge(**summaries: Mapping[str, Any]) -> Verdict:
    """The verdict on one stage."""
    (verdict,) = judge_stages({name.replace("pretrain", "."): summary for name, summary in summaries.items()})
    return verdict


def test_pretraining_is_good_below_the_bigram_model_on_every_source() -> None:
    good = judge(pretrain=make_pretraining())
    assert (good.stage, good.is_good) == ("pretrain", True)
    assert good.numbers == "validation loss 2.500, bigram model 3.000 nats per token"
    for code in (3.5, 4.0):
        bad = judge(pretrain=make_pretraining(web=1.0, code=code))
        assert bad.is_good is False
        assert bad.numbers.endswith("; not below it on code")


@pytest.mark.parametrize(
    ("before", "after", "is_good", "numbers"),
    [
        (4.0, 3.0, True, "held-out loss 4.000 -> 3.000 nats per token"),
        (4.0, 4.0, False, "held-out loss 4.000 -> 4.000 nats per token"),
        (3.0, 4.0, False, "held-out loss 3.000 -> 4.000 nats per token"),
        (None, 4.0, None, "held-out loss unknown -> 4.000 nats per token"),
        (None, None, None, "held-out loss unknown -> unknown nats per token"),
    ],
)
def test_fine_tuning_is_good_when_held_out_loss_fell(
    before: float | None, after: float | None, is_good: bool | None, numbers: str
) -> None:
    verdict = judge(sft=make_sft(before, after))
    assert (verdict.stage, verdict.is_good, verdict.numbers) == ("sft", is_good, numbers)


@pytest.mark.parametrize(
    ("changes", "is_good"),
    [
        ({}, True),
        ({"accuracy": 0.55}, False),  # the interval holds 0.5
        ({"accuracy": 0.8, "pairs": 5}, False),
        ({"accuracy": 0.3}, False),
        ({"of_length_alone": 0.8}, False),
        ({"of_length_alone": 0.9}, False),
        ({"leaked": 1}, False),
    ],
)
def test_a_reward_model_is_good_above_chance_and_length_without_leaks(changes: dict[str, Any], is_good: bool) -> None:
    verdict = judge(reward=make_reward(**changes))
    assert (verdict.stage, verdict.is_good) == ("reward", is_good)
    assert f"; {changes.get('leaked', 0)} leaked prompts" in verdict.numbers
    assert f"length alone {changes.get('of_length_alone', 0.5):.3f}" in verdict.numbers
    assert "correlation with length -0.25" in verdict.numbers


def test_reinforcement_is_good_when_gold_rises_beyond_doubt() -> None:
    verdict = judge(ppo=make_ppo())
    assert (verdict.stage, verdict.is_good) == ("ppo", True)
    assert " -> 1.000, difference +1.000 [+0.957, +1.043]; wins against sft 1.000 [0.920, 1.000]; " in verdict.numbers
    assert verdict.numbers.startswith("gold ")
    assert "KL 8.00 nats" in verdict.numbers
    assert "exploited" not in verdict.numbers


@pytest.mark.parametrize("gold", [-1.0, 0.0])
def test_a_proxy_that_rises_without_gold_is_called_exploited(gold: float) -> None:
    verdict = judge(ppo=make_ppo(gold=gold))
    assert verdict.is_good is False
    assert verdict.numbers.endswith("; the reward rose without it: the reward model is being exploited")


def test_where_neither_rises_nothing_is_exploited() -> None:
    verdict = judge(ppo=make_ppo(proxy=-1.0, gold=-1.0))
    assert verdict.is_good is False
    assert "exploited" not in verdict.numbers


def test_both_intervals_have_to_be_above_no_change() -> None:
    for group, low in (("difference", 0.0), ("wins", 0.5)):
        summary = make_ppo()
        summary["against_sft"]["gold"][group]["low"] = low
        assert judge(ppo=summary).is_good is False


def test_a_difference_on_one_prompt_is_never_good() -> None:
    assert judge(ppo=make_ppo(prompts=1)).is_good is False


def test_without_gold_the_verdict_is_open() -> None:
    verdict = judge(ppo=make_ppo(gold=None))
    assert verdict.is_good is None
    assert verdict.numbers.startswith("reward ")
    assert "no `ppo.gold`" in verdict.rule


def test_a_guard_that_ended_the_run_is_named() -> None:
    assert judge(ppo=make_ppo(stopped_by="KL 41.0 is above 40")).numbers.endswith("; stopped: KL 41.0 is above 40")


def write(folder: Path, **summaries: Mapping[str, Any]) -> str:
    """The report on stages with these summaries."""
    for name, summary in summaries.items():
        stage = folder if name == "pretrain" else folder / name
        RunWriter(stage).write_summary(summary)
    path = write_alignment_report(folder)
    assert path == folder / "report.md"
    return path.read_text(encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "r"


def test_the_report_tells_verdicts_with_their_rules(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = write(folder, pretrain=make_pretraining(), sft=make_sft(), reward=make_reward(leaked=2), ppo=make_ppo())
    lines = text.splitlines()
    assert lines[:4] == ["# r", "", "| stage | verdict | numbers | good means |", "|---|---|---|---|"]
    assert [line.split(" | ")[:2] for line in lines[4:8]] == [
        ["| pretrain", "good"],
        ["| sft", "good"],
        ["| reward", "**not good**"],
        ["| ppo", "good"],
    ]
    assert "| lower on held-out prompts |" in lines[5]
    printed = capsys.readouterr().out
    assert "not good" in printed
    assert f"report        {folder / 'report.md'}" in printed


def test_the_report_shows_intervals_and_the_picture(folder: Path) -> None:
    summary = make_ppo()
    text = write(folder, reward=make_reward(), ppo=summary)
    shown = [f"{row['mean']:.3f} [{row['low']:.3f}, {row['high']:.3f}]" for row in (summary["before"]["gold"],)]
    assert f"| gold | {shown[0]} | " in text
    assert "| response tokens | 20.000 | 40.000 |" in text
    assert "| kl | 0.000 | 8.000 |" in text
    assert "| chosen longer | 0.800 [0.711, 0.867], 100 |" in text
    assert "Calibration: 0.50 sure: 0.50 right (1); " in text
    assert "](ppo/alignment.png)" in text


def test_the_report_names_every_ancestor(folder: Path) -> None:
    text = write(folder, sft=make_sft(), reward=make_reward(), ppo=make_ppo())
    assert text.endswith(
        "## Ancestry\n\n"
        "* ppo: cccccccccccc, from model runs/r/sft/model (aaaaaaaaaaaa), "
        "reward model runs/r/reward/model (bbbbbbbbbbbb)\n"
        "* reward: bbbbbbbbbbbb, from model runs/r/sft/model (aaaaaaaaaaaa)\n"
        "* sft: aaaaaaaaaaaa, from model runs/r/export (eeeeeeeeeeee)\n"
    )


def read_answers(text: str) -> list[list[str]]:
    """Cells of the table of answers; GitHub splits a row at pipes without a backslash."""
    rows = text.partition("## Answers")[2].partition("\n## ")[0].strip().splitlines()[2:]
    return [[cell.strip() for cell in row.replace("\\|", "\0").strip("|").split("|")] for row in rows]


def test_answers_stand_side_by_side_and_cannot_break_the_table(folder: Path) -> None:
    writer = RunWriter(folder / "ppo")
    prompts = ["a|b", "<b>?", "line\nline", "c:\\|", "r\rn\r\nu\u2028v", "&lt;", "seventh"]
    for step, answer in ((0, "old"), (10, "middle"), (20, "<script>|\n\nnew")):
        for prompt in prompts:
            writer.log_sample(step, prompt, answer, reward=1.0)
    writer.log_sample(20, "only after", "x")
    rows = read_answers(write(folder, ppo=make_ppo()))
    assert [row[0] for row in rows] == [
        "a\0b",
        "&lt;b>?",
        "line ⏎ line",
        "c:\\\\\0",
        "r ⏎ n ⏎ u ⏎ v",
        "&amp;lt;",
    ]
    assert {tuple(row[1:]) for row in rows} == {("old", "&lt;script>\0 ⏎  ⏎ new")}


def test_long_answers_are_cut(folder: Path) -> None:
    writer = RunWriter(folder / "ppo")
    writer.log_sample(0, "?", "x" * 240, reward=1.0)
    writer.log_sample(20, "?", "y" * 241, reward=1.0)
    assert read_answers(write(folder, ppo=make_ppo())) == [["?", "x" * 240, "y" * 240 + " ..."]]


@pytest.mark.parametrize("names", [(), ("pretrain",), ("sft",), ("reward",), ("ppo",), ("pretrain", "sft")])
def test_missing_stages_are_left_out(folder: Path, names: tuple[str, ...]) -> None:
    makers: dict[str, Callable[[], dict[str, Any]]] = {
        "pretrain": make_pretraining,
        "sft": make_sft,
        "reward": make_reward,
        "ppo": make_ppo,
    }
    folder.mkdir()
    text = write(folder, **{name: makers[name]() for name in names})
    verdicts = text.split("\n\n")[1].splitlines()[2:]
    assert [line.split(" | ")[0] for line in verdicts] == [f"| {name}" for name in names]
    assert ("## Held-out prompts" in text) == ("ppo" in names)
    assert ("## Reward model" in text) == ("reward" in names)
    assert ("## Ancestry" in text) == bool({"sft", "reward", "ppo"} & set(names))


def test_a_summary_that_lacks_a_number_is_open_and_says_which(folder: Path) -> None:
    whole = {"pretrain": make_pretraining(), "sft": make_sft(), "reward": make_reward(), "ppo": make_ppo()}
    lacking = {"pretrain": "validation", "sft": "held_out_loss", "reward": "held_out", "ppo": "against_sft"}
    broken = copy.deepcopy(whole)
    for name, key in lacking.items():
        del broken[name][key]
    text = write(folder, **broken)
    for name, key in lacking.items():
        assert f"| {name} | open | summary.json has no '{key}' | cannot be told |" in text
    assert "summary.json of reward has no 'held_out', so its tables are missing here." in text
    assert "| gold | " in text  # what is there is shown


@pytest.mark.parametrize("stage", ["sft", "reward", "ppo"])
def test_a_summary_with_any_one_key_missing_makes_a_report(folder: Path, stage: str) -> None:
    whole = {"sft": make_sft(), "reward": make_reward(), "ppo": make_ppo()}
    for key in whole[stage]:
        broken = whole | {stage: {name: value for name, value in whole[stage].items() if name != key}}
        assert f"| {stage} | " in write(folder, **broken)


def test_a_torn_summary_is_left_out(folder: Path) -> None:
    (folder / "reward").mkdir(parents=True)
    (folder / "reward" / "summary.json").write_text(json.dumps(make_reward())[:50])
    text = write(folder, sft=make_sft())
    assert "| sft | good" in text
    assert "| reward |" not in text


@pytest.mark.parametrize("changes", [{}, {"gold": None}, {"prompts": 1}])
def test_the_picture_is_drawn(tmp_path: Path, changes: dict[str, Any]) -> None:
    draw_alignment(make_ppo(**changes), tmp_path / "alignment.png")
    content = (tmp_path / "alignment.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert len(content) > 10_000
