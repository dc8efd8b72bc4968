"""Descriptions of clusters load, and mistakes in them are named."""

from pathlib import Path

import pytest

from llmtrain.config.cluster import (
    CLUSTER_FOLDER,
    find_cluster_of_device,
    list_clusters,
    load_cluster,
    load_tracking_cluster,
)
from llmtrain.errors import ConfigError


@pytest.mark.parametrize("name", list_clusters())
def test_every_shipped_cluster_loads(name: str) -> None:
    cluster = load_cluster(name)
    assert cluster.num_devices == cluster.nodes * cluster.devices_per_node


def test_the_shipped_clusters_are_these() -> None:
    assert list_clusters() == ["dgx_a100_80gb", "dgx_h100", "dgx_h200", "two_core_cpu"]


def test_an_unknown_name_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match=r"--cluster dgx_h10: .* Did you mean 'dgx_h100'\?"):
        load_cluster("dgx_h10")


def test_a_name_like_none_lists_what_there_is() -> None:
    with pytest.raises(ConfigError, match="There are: dgx_a100_80gb, dgx_h100, dgx_h200, two_core_cpu; or give a YAML"):
        load_cluster("zzz")


def test_mistakes_of_a_file_are_named_with_their_lines(tmp_path: Path) -> None:
    text = (CLUSTER_FOLDER / "dgx_h100.yaml").read_text()
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace("nodes: 512", "nodez: 512").replace("memory_gib: 79.1 ", "memory_gib: -1 "))
    with pytest.raises(ConfigError) as error:
        load_cluster(str(path))
    assert f"{path}:8: unknown key 'nodez'. Did you mean 'nodes'?" in str(error.value)
    assert "'nodes' is missing. Set it (machines there are at most)" in str(error.value)
    assert "'device.memory_gib' = -1: " in str(error.value)


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot read the description of a cluster: "):
        load_cluster(str(tmp_path / "none.yaml"))
    (tmp_path / "empty.yaml").write_text("")
    with pytest.raises(ConfigError, match="a description of a cluster is a mapping of sections; this file"):
        load_cluster(str(tmp_path / "empty.yaml"))


@pytest.mark.parametrize(
    ("torch_name", "cluster"),
    [
        ("NVIDIA A100-SXM4-80GB", "DGX A100 80GB"),
        ("NVIDIA H100 80GB HBM3", "DGX H100"),
        ("NVIDIA H200", "DGX H200"),
        ("cpu", "two CPU cores"),
    ],
)
def test_the_name_of_a_device_finds_its_cluster(torch_name: str, cluster: str) -> None:
    found = find_cluster_of_device(torch_name)
    assert found is not None
    assert found.name == cluster


@pytest.mark.parametrize(
    "torch_name",
    ["NVIDIA A100-SXM4-40GB", "NVIDIA H200 NVL", "NVIDIA GH200 480GB", "NVIDIA H100 80GB HBM3 MIG 1g.10gb"],
)
def test_another_device_has_no_cluster(torch_name: str) -> None:
    assert find_cluster_of_device(torch_name) is None


def test_a_description_with_mistakes_is_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "broken.yaml").write_text("name: [\n")
    (tmp_path / "good.yaml").write_text((CLUSTER_FOLDER / "dgx_h100.yaml").read_text())
    found = find_cluster_of_device("NVIDIA H100 80GB HBM3", tmp_path)
    assert found is not None
    assert "left out: " in caplog.text
    assert "broken.yaml" in caplog.text


def test_the_key_that_asks_is_named() -> None:
    assert load_tracking_cluster(None) is None
    with pytest.raises(ConfigError, match=r"^tracking.cluster = nowhere: .* has no cluster of that name"):
        load_tracking_cluster("nowhere")
    with pytest.raises(ConfigError, match=r"^tracking.cluster = /no.yaml: there is no such file. Give one"):
        load_tracking_cluster("/no.yaml")
