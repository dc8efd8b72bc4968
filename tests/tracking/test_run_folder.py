import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from llmtrain.errors import MachineError
from llmtrain.tracking.run_folder import RunWriter, read_lines, read_metrics


def test_lines_come_back_in_the_order_written(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path)
    for step in (1, 2):
        writer.log_metrics(step, {"train/loss": 3.0 - step, "perf/step_seconds": 0.5})
    assert read_metrics(tmp_path) == {"train/loss": [(1, 2.0), (2, 1.0)], "perf/step_seconds": [(1, 0.5), (2, 0.5)]}


def test_generated_text_with_any_line_separator_is_one_line_of_the_file(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path)
    text = "a\u2028b\u0085c\nd\r\x1ce\u2029\x00 ß 漢"
    writer.log_sample(1, "a\u2028", text)
    writer.log_sample(2, "", "after")
    assert [line["text"] for line in read_lines(tmp_path / "samples.jsonl")] == [text, "after"]
    writer.resume(2)
    assert [line["text"] for line in read_lines(tmp_path / "samples.jsonl")] == [text, "after"]


def test_resuming_forgets_what_will_be_done_again(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path)
    writer.log_event("started")
    for step in range(1, 6):
        writer.log_metrics(step, {"train/loss": float(step)})
        writer.log_sample(step, "", str(step))
    writer.close()
    writer = RunWriter(tmp_path)
    writer.resume(3)
    writer.log_metrics(4, {"train/loss": 40.0})
    assert read_metrics(tmp_path)["train/loss"] == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0)]
    assert [line["step"] for line in read_lines(tmp_path / "samples.jsonl")] == [1, 2, 3]
    assert [line["event"] for line in read_lines(tmp_path / "events.jsonl")] == ["started"]


@pytest.mark.parametrize("torn", [b'{"step": 2, "ti', b'{"step": 2, "text": "\xe6\xbc', b"\x00\x00\x00"])
def test_a_line_torn_by_a_kill_is_mended_and_hides_nothing_after_it(tmp_path: Path, torn: bytes) -> None:
    writer = RunWriter(tmp_path)
    writer.log_metrics(1, {"train/loss": 1.0})
    writer.log_event("started")
    writer.close()
    for name in ("metrics.jsonl", "events.jsonl"):
        with (tmp_path / name).open("ab") as file:
            file.write(torn)
    assert len(read_lines(tmp_path / "metrics.jsonl")) == 1
    writer = RunWriter(tmp_path)
    writer.resume(1)
    writer.log_metrics(2, {"train/loss": 2.0})
    writer.log_event("finished")
    assert read_metrics(tmp_path)["train/loss"] == [(1, 1.0), (2, 2.0)]
    assert [line["event"] for line in read_lines(tmp_path / "events.jsonl")] == ["started", "finished"]


def test_a_killed_process_loses_no_line_and_never_imports_mlflow(tmp_path: Path) -> None:
    code = textwrap.dedent(
        f"""
        import sys, time
        from pathlib import Path
        from llmtrain.tracking.mirror import start_mirror
        from llmtrain.tracking.run_folder import RunWriter
        writer = RunWriter(Path({str(tmp_path)!r}))
        for step in range(1, 101):
            writer.log_metrics(step, {{"train/loss": 1.0}})
        assert "mlflow" not in sys.modules and "torch" not in sys.modules
        print("written", flush=True)
        time.sleep(60)
        """
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "written\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert [step for step, _ in read_metrics(tmp_path)["train/loss"]] == list(range(1, 101))


def test_a_number_that_json_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range"):
        RunWriter(tmp_path).log_metrics(1, {"train/loss": float("nan")})


def test_a_full_disk_names_the_file_and_what_to_do_and_closing_says_nothing_more(tmp_path: Path) -> None:
    for name in ("metrics.jsonl", "samples.jsonl", "events.jsonl"):
        (tmp_path / name).symlink_to("/dev/full")
    writer = RunWriter(tmp_path)
    writes: dict[str, Callable[[], None]] = {
        "metrics.jsonl": lambda: writer.log_metrics(1, {"train/loss": 1.0}),
        "samples.jsonl": lambda: writer.log_sample(1, "a", "b"),
        "events.jsonl": lambda: writer.log_event("started"),
    }
    for name, write in writes.items():
        with pytest.raises(MachineError) as caught:
            write()
        assert str(caught.value) == (
            f"{tmp_path / name}: cannot be written: No space left on device. Free some space or make the folder "
            "writable, then start again: the run resumes from its last checkpoint."
        )
    writer.close()


def test_a_summary_that_cannot_be_written_leaves_the_older_one(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path)
    writer.write_summary({"run": "older"})
    (tmp_path / "summary.json.tmp").symlink_to("/dev/full")
    with pytest.raises(MachineError, match=r"summary\.json: cannot be written: No space left on device"):
        writer.write_summary({"run": "newer"})
    assert json.loads((tmp_path / "summary.json").read_text()) == {"run": "older"}


def test_the_summary_replaces_an_older_one_whole(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path)
    writer.write_summary({"run": "long" * 100})
    writer.write_summary({"run": "ß"})
    assert json.loads((tmp_path / "summary.json").read_text(encoding="utf-8")) == {"run": "ß"}
    assert not list(tmp_path.glob("*.tmp"))
