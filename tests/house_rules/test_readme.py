"""The README's figures are those of the committed results; nobody copies a number by hand.

Write them again with `python tests/house_rules/test_readme.py`.
"""

import json
import re
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmtrain.stages.alignment_report import judge_stages, render_verdicts
from llmtrain.tracking.summary import render_summary

README, RESULTS = Path("README.md"), Path("docs/results")


def read_result(name: str) -> Any:
    return json.loads((RESULTS / name).read_text())


def render_quickstart() -> str:
    return render_summary(read_result("quickstart/summary.json"))


def render_speed() -> str:
    training, tokenize, loader = (read_result(f"{name}_cpu.json") for name in ("training", "tokenize", "loader"))
    rows = ["| on two CPU cores, side by side in one run | |", "|---|---|"]
    for name, size in training["sizes"].items():
        shape = f"{size['parameters'] / 1e6:.1f} M parameters, float32"
        rows += [
            f"| training, {name}, {shape} | {size['median']['llmtrain']:,.0f} tokens/s, "
            f"{size['model_flops_utilization']['llmtrain']:.0%} of the matmul peak |",
            f"| ... beside Hugging Face `Trainer` | {size['llmtrain_over_huggingface_trainer']:.2f} x |",
            f"| ... beside a bare PyTorch loop on the same model | {size['llmtrain_over_bare_loop']:.2f} x |",
        ]
    peers = {
        "sentencepiece": "SentencePiece's own threads, text in memory",
        "megatron": "Megatron-LM's `preprocess_data.py`",
        "datatrove": "datatrove's `DocumentTokenizer`",
        "megatron_fast": "Megatron-LM's `preprocess_data_fast.py` (gigatoken)",
    }
    encoders = {"llmtrain": "", "llmtrain_fast": " with `accelerator: gigatoken`"}
    rows += [
        f"| tokenizing into shards{encoder} beside {name} | {ratio:.2f} x |"
        for own, encoder in encoders.items()
        for peer, name in peers.items()
        if (ratio := tokenize["ratios"].get(f"{own}_over_{peer}")) is not None
    ]
    tokens = statistics.median(loader["load"]["batch_16"]["tokens_per_second"]["concatenate"])
    rows.append(f"| loader, one process and one thread | {tokens / 1e6:.0f} million tokens/s |")
    rows.append(f"| a corpus of a trillion tokens opens in | {loader['open']['open_seconds']:.2f} s |")
    return "\n".join(rows)


def render_stages() -> str:
    folder = "quickstart"
    parts = {".": "summary", "sft": "sft", "reward": "reward", "ppo": "ppo"}
    return render_verdicts(judge_stages({name: read_result(f"{folder}/{file}.json") for name, file in parts.items()}))


SECTIONS: dict[str, Callable[[], str]] = {"summary": render_quickstart, "speed": render_speed, "stages": render_stages}


def section_pattern(name: str) -> re.Pattern[str]:
    return re.compile(rf"(<!-- {name} -->\n)(.*?)(<!-- /{name} -->)", re.DOTALL)


@pytest.mark.parametrize("name", SECTIONS)
def test_a_section_of_the_readme_is_made_from_the_results(name: str) -> None:
    found = section_pattern(name).search(README.read_text())
    assert found is not None
    assert found[2].strip() == SECTIONS[name]().strip()


def test_every_link_of_the_pages_leads_somewhere() -> None:
    missing = [
        f"{page}: {target}"
        for page in (README, Path("CONTRIBUTING.md"), *Path("docs").rglob("*.md"))
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert missing == []


if __name__ == "__main__":
    text = README.read_text()
    for section, render in SECTIONS.items():
        body = render()
        text = section_pattern(section).sub(lambda match, body=body: f"{match[1]}{body}\n{match[3]}", text)  # type: ignore[misc]
    README.write_text(text)
