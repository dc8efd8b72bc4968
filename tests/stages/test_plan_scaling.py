"""`llmtrain plan --scaling`: its picture, its table, its JSON, its messages."""

import itertools
import json
import struct
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tests.helpers.door import call_door

GPT3 = ["plan", "configs/pretrain/gpt3_175b.yaml", "--world-size", "1536"]
SMALL = ["plan", "configs/pretrain/gpt3_1.3b.yaml", "model.num_layers=2", "--world-size", "8"]


def read_png_size(path: Path) -> tuple[int, int]:
    header = path.read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", header[16:])
    return width, height


def test_a_picture_is_drawn_and_its_points_are_in_the_table_and_the_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "pictures" / "scaling.png"
    code, printed = call_door([*GPT3, "--scaling", str(picture)], monkeypatch, capsys)
    assert code == 0
    assert read_png_size(picture) == (1950, 624)
    assert "4,096 " in printed
    assert "98,304*" in printed
    assert "* more than the 4,096 devices of DGX H100: the same machines in larger number" in printed
    code, printed_json = call_door([*GPT3, "--scaling", str(picture), "--json"], monkeypatch, capsys)
    found = json.loads(printed_json)
    scaling = found["scaling"]
    assert (code, scaling["picture"], scaling["layouts"]) == (0, str(picture), "configured")
    assert scaling["cluster_devices"] == 4096
    for point in (*scaling["strong"], *scaling["weak"]):
        assert f"{point['tokens_per_second']:,.0f}" in printed
        assert f"{point['global_batch_size']:,}" in printed
        assert 0 < point["efficiency"] <= 1
    (configured,) = [point for point in scaling["strong"] if point["ranks"] == 1536]
    assert configured["step"]["total"] == found["step"]["step_seconds"]
    assert configured["train_seconds"] == pytest.approx(found["run"]["train_seconds"])


def test_the_title_and_the_legend_say_what_was_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    arguments = ["--scaling", str(tmp_path / "x.png")]
    call_door([*GPT3, *arguments], monkeypatch, capsys)
    call_door([*SMALL, *arguments, "--search"], monkeypatch, capsys)
    call_door([*SMALL, *arguments, "batch.micro_batch_size=64", "model.num_layers=24"], monkeypatch, capsys)
    configured, searched, too_large = drawn
    assert configured.get_suptitle() == (
        "gpt3_175b, 175B parameters, planned on machines of DGX H100 (8 x H100 SXM 80GB)\n"
        "configured layout (tensor 8 x pipeline 16, ZeRO 1) with more data-parallel ranks"
    )
    assert searched.get_suptitle().endswith("the best layout found for each number of ranks")
    labels = {text.get_text() for text in configured.legends[0].get_texts()}
    assert "more machines than DGX H100 has (4,096 devices)" in labels
    assert "does not fit memory" not in labels
    assert "does not fit memory" in {text.get_text() for text in too_large.legends[0].get_texts()}


def test_nothing_overlaps_in_the_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    call_door(
        [*SMALL, "batch.micro_batch_size=64", "model.num_layers=24", "--scaling", str(tmp_path / "x.png")],
        monkeypatch,
        capsys,
    )
    (figure,) = drawn
    FigureCanvasAgg(figure).draw()
    whole = figure.bbox
    legend = figure.legends[0].get_window_extent()
    assert whole.x0 <= legend.x0
    assert legend.x1 <= whole.x1
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    for left, right in itertools.pairwise(boxes):
        assert left is not None
        assert right is not None
        assert left.x1 <= right.x0 + 25  # a last label of ranks may reach under the next panel's axis label
    assert all(box is not None and box.y0 >= legend.y1 for box in boxes)


def test_a_searched_curve_is_told_with_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*SMALL, "--scaling", str(tmp_path / "x.png"), "--search"]
    code, printed = call_door(arguments, monkeypatch, capsys)
    assert code == 0
    assert "the best" in printed
    assert "picture: " in printed
    code, printed = call_door([*arguments, "--json"], monkeypatch, capsys)
    found = json.loads(printed)
    assert code == 0
    assert found["scaling"]["layouts"] == "searched"
    (base,) = [point for point in found["scaling"]["strong"] if point["ranks"] == 8]
    assert base["step"]["total"] == found["proposals"][0]["step_seconds"]


def test_a_batch_that_no_machine_divides_says_that_there_is_no_strong_scaling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    batch = ["batch.global_batch_size=9", "batch.micro_batch_size=3", "--world-size", "1"]
    arguments = ["plan", "configs/pretrain/gpt3_1.3b.yaml", *batch, "--scaling", str(tmp_path / "x.png")]
    code, printed = call_door(arguments, monkeypatch, capsys)
    assert code == 0
    assert "no strong scaling: no number of ranks from 8 to 100,000 divides the batch in a layout that fits" in printed
    assert (tmp_path / "x.png").exists()


def test_a_layout_that_fills_no_machines_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = tmp_path / "cluster.yaml"
    text = Path("configs/clusters/dgx_h100.yaml").read_text()
    cluster.write_text(text.replace("devices_per_node: 8", "devices_per_node: 200_003"))
    arguments = [*SMALL, "--cluster", str(cluster), "--scaling", str(tmp_path / "x.png")]
    code, printed = call_door(arguments, monkeypatch, capsys)
    assert code == 2
    assert "no number of ranks from 8 to 100,000 that fills machines of 200003 holds a layout that fits" in printed


def test_pictures_that_cannot_be_written_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, printed = call_door([*SMALL, "--scaling", "curve.pdf"], monkeypatch, capsys)
    assert code == 2
    assert "command line: --scaling curve.pdf: the picture is a PNG. Give a file that ends in .png." in printed
    (tmp_path / "file").touch()
    code, printed = call_door([*SMALL, "--scaling", str(tmp_path / "file" / "x.png")], monkeypatch, capsys)
    assert code == 2
    assert "Give a file that can be written." in printed
