"""Folders of post-training stages inside a run folder, and what all stages of one run share.

ROOT/RUN/                pretraining     ROOT/RUN/pipeline.json    the id of all stages together
ROOT/RUN/{sft,...}/      a stage         stage.json                what it was made from
ROOT/RUN/old/            stages that were done again
"""

import json
import uuid
from pathlib import Path
from typing import Any

from llmtrain.tracking.run_folder import write_whole

STAGE_NAME, PIPELINE_NAME, OLD_NAME = "stage.json", "pipeline.json", "old"


def read_stage(folder: Path) -> dict[str, Any]:
    """The stage.json of a folder; empty when there is none."""
    path = folder / STAGE_NAME
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def find_run(folder: Path) -> Path:
    """The run folder that a folder is, or that holds its stage."""
    if not read_stage(folder):
        return folder
    return folder.parent.parent if folder.parent.name == OLD_NAME else folder.parent


def find_root(folder: Path) -> Path:
    """The folder that holds run folders, absolute."""
    return find_run(folder.absolute()).parent


def name_pipeline(folder: Path) -> str:
    """The id that all stages of a run share; the first one that asks makes it."""
    run = find_run(folder)
    path = run / PIPELINE_NAME
    if not path.is_file():
        write_whole(path, json.dumps({"pipeline": f"{run.absolute().name}-{uuid.uuid4().hex[:8]}"}) + "\n")
    return str(json.loads(path.read_text(encoding="utf-8"))["pipeline"])
