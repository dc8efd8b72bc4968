from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.checkpoint.worlds import Facts, world_of_one, world_of_two
from tests.helpers.ranks import run_ranks


@pytest.fixture(scope="session")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Facts, list[Facts]]:
    """The folder, facts of the world of one, facts of each rank of the world of two."""
    folder = tmp_path_factory.mktemp("worlds")
    with ThreadPoolExecutor(2) as threads:
        one = threads.submit(run_ranks, 1, world_of_one, folder)
        two = threads.submit(run_ranks, 2, world_of_two, folder)
        return folder, one.result()[0], two.result()
