"""Clusters as files: what is written is read again."""

from pathlib import Path

import pytest

from llmtrain.config.cluster import list_clusters, load_cluster, read_cluster
from llmtrain.config.cluster_file import render_cluster, write_cluster
from llmtrain.errors import ConfigError


@pytest.mark.parametrize("name", list_clusters())
def test_a_rendered_cluster_is_the_one_it_was_rendered_from(name: str, tmp_path: Path) -> None:
    cluster = load_cluster(name)
    path = tmp_path / "deep" / "cluster.yaml"
    write_cluster(render_cluster(cluster, ["llmtrain", ""], {}), path, "--output")
    rate = cluster.reliability.failures_per_device_hour
    found = read_cluster(path)
    assert found.reliability.failures_per_device_hour == pytest.approx(rate, rel=1e-3)
    rounded = cluster.reliability.model_copy(
        update={"failures_per_device_hour": found.reliability.failures_per_device_hour}
    )
    assert found == cluster.model_copy(update={"reliability": rounded})


def test_comments_stand_at_the_top_and_behind_keys() -> None:
    notes = {"link": "of all", "link.gb_per_second": "of one", "name": "why"}
    lines = render_cluster(load_cluster("dgx_h100"), ["llmtrain cluster", "", "more"], notes).splitlines()
    assert lines[:4] == ["# llmtrain cluster", "#", "# more", "name: DGX H100  # why"]
    assert lines[lines.index("link:  # of all") + 1] == "  gb_per_second: 450.0  # of one"


def test_a_file_that_cannot_be_written_is_named_with_its_option(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--output .*: Is a directory\. Give a file that can be written\."):
        write_cluster("", tmp_path, "--output")
