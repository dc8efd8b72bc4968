"""Folders of post-training stages inside a run folder, and what all stages of one run share.

ROOT/RUN/                pretraining     ROOT/RUN/pipeline.json    the id of all stages together
ROOT/RUN/{sft,...}/      a stage         stage.json                what it was made from
"""

import json
import uuid
from pathlib import Path
from typing import Any

from llmtrain.tracking.run_folder import write_whole

STAGE_NAME, PIPELINE_NAME = "stage.json", "pipeline.json"


def read_stage(folder: Path) -> dict[str, Any]:
    """The stage.json of a folder; empty when there is none."""
    path = folder / STAGE_NAME
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def find_root(folder: Path) -> Path:
    """The folder that holds run folders, absolute."""
    run = folder.absolute().parent if read_stage(folder) else folder.absolute()
    return run.parent


def name_pipeline(folder: Path) -> str:
    """The id that all stages of a run share; the first one that asks makes it."""
    run = folder.parent if read_stage(folder) else folder
    path = run / PIPELINE_NAME
    if not path.is_file():
        write_whole(path, json.dumps({"pipeline": f"{run.absolute().name}-{uuid.uuid4().hex[:8]}"}) + "\n")
    return str(json.loads(path.read_text(encoding="utf-8"))["pipeline"])
