"""The resolved configuration of every shipped run, checked in: a changed default shows up in review.

Write them again with `python tests/house_rules/test_golden.py`.
"""

from pathlib import Path

import pytest

from llmtrain.config.loader import dump_config, load_stage_config

GOLDEN = Path(__file__).parent / "golden"
RUNS = sorted(path for folder in (".", "pretrain", "posttraining") for path in Path("configs", folder).glob("*.yaml"))


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_the_resolved_configuration_is_the_one_checked_in(path: Path) -> None:
    assert dump_config(load_stage_config([path]).config) == (GOLDEN / path.name).read_text()


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for run in RUNS:
        (GOLDEN / run.name).write_text(dump_config(load_stage_config([run]).config))
