import io

import pytest
from rich.console import Console

from llmtrain.tracking import metric_names as names
from llmtrain.tracking.console import TrainingConsole

METRICS = {
    names.TRAIN_LOSS: 3.25,
    names.GRAD_NORM: 1.5,
    names.LEARNING_RATE: 1e-3,
    names.TOKENS_PER_SECOND: 12345.6,
    names.MODEL_FLOPS_UTILIZATION: 0.415,
}


def show(is_terminal: bool) -> str:
    output = io.StringIO()
    console = TrainingConsole(0, 20, Console(file=output, force_terminal=is_terminal, width=160, highlight=False))
    for step in range(1, 11):
        console.update(step, 3.25)
    console.log(10, METRICS)
    console.update(11, 3.25)
    console.print("step 10: sample '[bold]def ' -> 'x'")
    console.close()
    return output.getvalue()


def test_a_file_gets_one_plain_line_for_each_interval() -> None:
    assert show(is_terminal=False) == (
        "step 10/20  loss 3.2500  grad norm 1.500  lr 1.00e-03  12,346 tokens/s, MFU 41.5%\n"
        "step 10: sample '[bold]def ' -> 'x'\n"
    )


def test_a_terminal_gets_a_bar_with_loss_and_speed() -> None:
    text = show(is_terminal=True)
    assert "11/20" in text
    assert "12,346 tokens/s, MFU 41.5%" in text
    assert "[bold]def " in text


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[3" not in show(is_terminal=True).replace("\x1b[3A", "")
