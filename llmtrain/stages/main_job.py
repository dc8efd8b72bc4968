"""The end of the main job: export the model, show what it says, tell how it did."""

import json
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown

from llmtrain.config.root import Config
from llmtrain.stages.export import export_run
from llmtrain.stages.generate import generate_texts
from llmtrain.tracking.run_folder import SUMMARY_NAME
from llmtrain.tracking.summary import render_summary


def finish_main_job(config: Config) -> None:
    """Export the finished run and print its summary and a continuation of each prompt; standard output."""
    console = Console(soft_wrap=True, highlight=False)
    folder = config.run.folder
    exported = export_run(folder, None, None)
    sampling = config.sampling
    texts = generate_texts(
        folder, sampling.prompts, sampling.max_new_tokens, sampling.temperature, sampling.top_k, config.run.seed, None
    )
    for text in texts:
        console.rule(style="dim")
        console.print(text, markup=False)
    console.rule(style="dim")
    summary = json.loads((folder / SUMMARY_NAME).read_text(encoding="utf-8"))
    console.print(Markdown(render_summary(summary)))
    _tell_next_steps(console, folder, exported, config.run.root)


def _tell_next_steps(console: Console, folder: Path, exported: Path, root: Path) -> None:
    console.print(f"curves        {folder / 'curves.png'}")
    console.print(f"more text     llmtrain generate {folder} --prompt 'def '")
    console.print(f"dashboard     llmtrain dashboard {root}")
    console.print(f"transformers  pipeline('text-generation', model='{exported}')")
