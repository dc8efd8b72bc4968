"""The written answer to "which stage is good?": a verdict on each stage with its numbers, curves, answers, ancestry.

    summaries of all stages -> RUN/report.md;  evaluations of ppo -> RUN/ppo/alignment.png

Verdicts are rules that stand beside them; a number that is missing is never called good.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markdown import Markdown

from llmtrain.tracking.run_folder import SAMPLES_NAME, read_lines, read_summary, write_whole
from llmtrain.tracking.summary import COLOURS

REPORT_NAME, PICTURE_NAME = "report.md", "alignment.png"
_SHOWN_ANSWERS, _SHOWN_CHARACTERS = 6, 240


@dataclass(frozen=True)
class Verdict:
    """On one stage."""

    stage: str
    is_good: bool | None
    """None: it cannot be told."""
    numbers: str
    rule: str


def write_alignment_report(run_folder: Path) -> Path:
    """Write the report and print the verdicts.

    Returns:
        The report.
    """
    summaries = {name: read_summary(run_folder / name) for name in (".", "sft", "reward", "ppo")}
    verdicts = judge_stages(summaries)
    parts = [f"# {run_folder.name}", render_verdicts(verdicts)]
    if summaries["ppo"]:
        parts += [
            f"![gold and proxy over KL, length, variety, wins](ppo/{PICTURE_NAME})",
            _render(_render_ppo, summaries["ppo"]),
        ]
        parts += [_render_answers(read_lines(run_folder / "ppo" / SAMPLES_NAME))]
    if summaries["reward"]:
        parts.append(_render(_render_reward, summaries["reward"]))
    parts.append(_render_ancestry(summaries))
    text = "\n\n".join(part for part in parts if part) + "\n"
    write_whole(run_folder / REPORT_NAME, text)
    console = Console(soft_wrap=True, highlight=False)
    console.print(Markdown(render_verdicts(verdicts)))
    console.print(f"report        {run_folder / REPORT_NAME}")
    return run_folder / REPORT_NAME


def judge_stages(summaries: Mapping[str, Mapping[str, Any]]) -> list[Verdict]:
    """One verdict for each stage that has a summary.

    Args:
        summaries: of `.` (pretraining), `sft`, `reward` and `ppo`; empty where there is none.
    """
    judges = {".": _judge_pretraining, "sft": _judge_sft, "reward": _judge_reward, "ppo": _judge_ppo}
    verdicts = []
    for name, judge in judges.items():
        if summary := summaries.get(name):
            try:
                verdicts.append(judge(summary))
            except KeyError as missing:
                stage = "pretrain" if name == "." else name
                verdicts.append(Verdict(stage, None, f"summary.json has no {missing}", "cannot be told"))
    return verdicts


def _judge_pretraining(summary: Mapping[str, Any]) -> Verdict:
    validation = summary["validation"]
    worse = [name for name, row in validation["by_source"].items() if row["loss"] >= row["bigram"]]
    numbers = f"validation loss {validation['loss']:.3f}, bigram model {validation['bigram']:.3f} nats per token"
    if worse:
        numbers += f"; not below it on {', '.join(worse)}"
    return Verdict("pretrain", not worse, numbers, "below the bigram model on every source")


def _judge_sft(summary: Mapping[str, Any]) -> Verdict:
    loss = summary["held_out_loss"]
    before, after = loss["before"], loss["after"]
    is_good = after < before if before is not None and after is not None else None
    shown = [f"{value:.3f}" if value is not None else "unknown" for value in (before, after)]
    numbers = f"held-out loss {shown[0]} -> {shown[1]} nats per token"
    return Verdict("sft", is_good, numbers, "lower on held-out prompts")


def _judge_reward(summary: Mapping[str, Any]) -> Verdict:
    report = summary["held_out"]
    accuracy, by_length = report["accuracy"], report["accuracy_of_length_alone"]
    numbers = (
        f"held-out accuracy {accuracy['value']:.3f} [{accuracy['low']:.3f}, {accuracy['high']:.3f}] on "
        f"{accuracy['pairs']} pairs; length alone {by_length:.3f}; calibration error "
        f"{report['calibration']['expected_error']:.3f}; correlation with length "
        f"{report['reward_length_correlation']:+.2f}; {summary['prompts_in_both_parts']} leaked prompts"
    )
    is_good = accuracy["low"] > 0.5 and accuracy["value"] > by_length and not summary["prompts_in_both_parts"]
    return Verdict("reward", is_good, numbers, "interval above 0.5, value above that of length alone, nothing leaked")


def _judge_ppo(summary: Mapping[str, Any]) -> Verdict:
    against = summary["against_sft"]
    after = summary["after"]
    name = "gold" if "gold" in against else "reward"
    difference, wins = against[name]["difference"], against[name]["wins"]
    numbers = (
        f"{name} {summary['before'][name]['mean']:.3f} -> {after[name]['mean']:.3f}, difference "
        f"{difference['mean']:+.3f} {_bounds(difference, '+.3f')}; wins against sft "
        f"{wins['win_rate']:.3f} [{wins['low']:.3f}, {wins['high']:.3f}]; KL {after['kl']:.2f} nats; tokens "
        f"{summary['before']['response_tokens']:.1f} -> {after['response_tokens']:.1f}; distinct-2 "
        f"{summary['before']['distinct_2']:.3f} -> {after['distinct_2']:.3f}"
    )
    highest = max((row for row in summary["history"] if name in row), key=lambda row: row[name]["mean"])
    if highest[name]["mean"] > after[name]["mean"]:
        numbers += f"; it was highest at rollout {highest['step']} ({highest[name]['mean']:.3f})"
    if summary.get("stopped_by"):
        numbers += f"; stopped: {summary['stopped_by']}"
        numbers += f"; kept is the model of rollout {summary['kept_step']}" if "kept_step" in summary else ""
    if name == "reward":
        return Verdict("ppo", None, numbers, "cannot be told: no `ppo.gold` measures what is really wanted")
    proxy = against["reward"]["difference"]
    is_good = _is_above_zero(difference) and wins["low"] > 0.5
    if not is_good and _is_above_zero(proxy):
        numbers += "; the reward rose without it: the reward model is being exploited"
    return Verdict("ppo", is_good, numbers, "gold rises on held-out prompts, both intervals above no change")


def draw_alignment(summary: Mapping[str, Any], output: Path) -> None:
    """Gold and proxy over the square root of KL (Gao et al. 2022, figure 1), length, variety, and wins.

    Args:
        summary: of the stage `ppo`.
        output: PNG file to write.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    history = summary["history"]
    figure = Figure(figsize=(11, 7), layout="constrained")
    (scores, length), (variety, wins) = figure.subplots(2, 2)
    distances = [math.sqrt(max(row["kl"], 0.0)) for row in history]
    for colour, name, label in (
        (COLOURS[0], "reward", "proxy: reward that is optimized"),
        (COLOURS[1], "gold", "gold"),
    ):
        if name in history[0]:
            _draw_means(scores, distances, [row[name] for row in history], colour, label)
    scores.set(xlabel="√KL from the fine-tuned model (√nats)", ylabel="held-out mean, 95 %", title="what was learned")
    steps = [row["step"] for row in history]
    length.plot(
        steps, [row["response_tokens"] for row in history], "o-", color=COLOURS[0], label="tokens of a response"
    )
    length.set(xlabel="rollout", ylabel="tokens", title="length")
    length.set_ylim(0, 1.1 * max(row["response_tokens"] for row in history))
    ended = length.twinx()
    ended.plot(steps, [row["ended_fraction"] for row in history], "s--", color=COLOURS[2], label="responses that end")
    ended.set_ylim(0, 1.05)
    length.legend(
        [*length.get_lines(), *ended.get_lines()],
        ["tokens of a response", "fraction that ends (right)"],
        loc="lower left",
        frameon=False,
    )
    for i, name in enumerate(("distinct_1", "distinct_2", "distinct_3", "distinct_responses")):
        variety.plot(steps, [row[name] for row in history], "o-", color=COLOURS[i], label=name.replace("_", "-"))
    variety.set(xlabel="rollout", ylabel="share that is different", title="variety", ylim=(0, 1.05))
    variety.legend(frameon=False)
    names = list(summary["against_sft"])
    rows = [summary["against_sft"][name]["wins"] for name in names]
    for i, row in enumerate(rows):
        wins.plot([row["low"], row["high"]], [i, i], color=COLOURS[0], linewidth=2)
        wins.plot(row["win_rate"], i, "o", color=COLOURS[0])
    wins.axvline(0.5, color="grey", linestyle=":")
    wins.set(
        yticks=range(len(names)), yticklabels=names, xlim=(0, 1), xlabel="wins against sft, 95 %", title="by measure"
    )
    figure.savefig(output, dpi=110)


def _draw_means(axes: Any, places: Sequence[float], rows: Sequence[Mapping[str, Any]], colour: str, label: str) -> None:
    means = [row["mean"] for row in rows]
    # A single answer has no interval.
    errors = [
        [mean - (row["low"] if row["low"] is not None else mean) for mean, row in zip(means, rows, strict=True)]
    ] * 2
    axes.errorbar(places, means, yerr=errors, fmt="o-", color=colour, capsize=3, markersize=4, label=label)
    axes.legend(frameon=False)


def render_verdicts(verdicts: Sequence[Verdict]) -> str:
    """As a table of Markdown."""
    words = {True: "good", False: "**not good**", None: "open"}
    rows = [f"| {row.stage} | {words[row.is_good]} | {row.numbers} | {row.rule} |" for row in verdicts]
    return "\n".join(["| stage | verdict | numbers | good means |", "|---|---|---|---|", *rows])


def _render(render: Callable[[Mapping[str, Any]], str], summary: Mapping[str, Any]) -> str:
    try:
        return render(summary)
    except KeyError as missing:
        return f"summary.json of {summary.get('stage')} has no {missing}, so its tables are missing here."


def _render_ppo(summary: Mapping[str, Any]) -> str:
    before, after = summary["before"], summary["after"]
    rows = []
    for name, value in after.items():
        if isinstance(value, Mapping):
            old = before[name]
            rows.append(f"| {name} | {_interval(old)} | {_interval(value)} |")
        elif name != "step":
            rows.append(f"| {name.replace('_', ' ')} | {before[name]:.3f} | {value:.3f} |")
    head = ["## Held-out prompts", "", "| | fine-tuned | after reinforcement |", "|---|---|---|"]
    return "\n".join([*head, *rows])


def _render_answers(lines: Sequence[Mapping[str, Any]]) -> str:
    if not lines:
        return ""
    first, last = lines[0]["step"], lines[-1]["step"]
    before = {line["prompt"]: line["text"] for line in lines if line["step"] == first}
    after = {line["prompt"]: line["text"] for line in lines if line["step"] == last}
    rows = [
        f"| {_cell(prompt)} | {_cell(before[prompt])} | {_cell(after[prompt])} |"
        for prompt in list(before)[:_SHOWN_ANSWERS]
        if prompt in after
    ]
    return "\n".join(["## Answers", "", "| prompt | fine-tuned | after reinforcement |", "|---|---|---|", *rows])


def _render_reward(summary: Mapping[str, Any]) -> str:
    report = summary["held_out"]
    rows = [f"| all | {_accuracy(report['accuracy'])} |"]
    for group in ("accuracy_by_source", "accuracy_by_length"):
        rows += [f"| {name.replace('_', ' ')} | {_accuracy(row)} |" for name, row in report[group].items()]
    head = ["## Reward model", "", "| held-out pairs | accuracy [95 %], pairs |", "|---|---|"]
    bins = [
        f"{row['probability']:.2f} sure: {row['right']:.2f} right ({row['pairs']})"
        for row in report["calibration"]["bins"]
    ]
    return "\n".join([*head, *rows, "", f"Calibration: {'; '.join(bins)}."])


def _render_ancestry(summaries: Mapping[str, Mapping[str, Any]]) -> str:
    rows = []
    for name in ("ppo", "reward", "sft"):
        summary = summaries[name]
        if summary:
            parents = summary.get("parents", {}).items()
            named = [f"{role} {row['folder']} ({row['digest'][:12]})" for role, row in parents]
            rows.append(
                f"* {name}: {summary.get('model_digest', 'unknown')[:12]}, from {', '.join(named) or 'unknown'}"
            )
    return "\n".join(["## Ancestry", "", *rows]) if rows else ""


def _interval(row: Mapping[str, Any]) -> str:
    return f"{row['mean']:.3f} {_bounds(row, '.3f')}"


def _is_above_zero(row: Mapping[str, float | None]) -> bool:
    return row["low"] is not None and row["low"] > 0


def _bounds(row: Mapping[str, float | None], form: str) -> str:
    low, high = ("?" if row[name] is None else format(row[name], form) for name in ("low", "high"))
    return f"[{low}, {high}]"


def _accuracy(row: Mapping[str, float]) -> str:
    return f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}], {row['pairs']}"


def _cell(text: str) -> str:
    short = text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + " ..."
    short = short.replace("\\", "\\\\").replace("|", "\\|").replace("&", "&amp;").replace("<", "&lt;")
    return " ⏎ ".join(short.splitlines())
