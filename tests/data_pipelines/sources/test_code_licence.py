import itertools
from collections import Counter
from importlib.metadata import distributions
from pathlib import Path

import pytest

from data_pipelines.sources.code_licence import (
    NearestLicence,
    find_folder_licence,
    find_header,
    find_unknown,
    is_allowed,
    is_licence_file,
    recognise_licence,
)

COMMON = Path("/usr/share/common-licenses")


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("MIT License\n\nPermission is hereby granted, free of\ncharge, to any person", "MIT"),
        ("Redistribution and use in source and binary forms, with or without", "BSD-2-Clause"),
        ("Redistribution and use in source and binary forms ... Neither the name of X", "BSD-3-Clause"),
        ("Apache License\nVersion 2.0\n ... bundled: Redistribution and use in source and binary forms", "Apache-2.0"),
        ("GNU GENERAL PUBLIC LICENSE\n  Version 2, June 1991 ... GNU Lesser General Public License", "GPL-2.0"),
        ("GNU LESSER GENERAL PUBLIC LICENSE\n Version 3 ... GNU General Public License, version 3", "LGPL-3.0"),
        ("GNU AFFERO GENERAL PUBLIC LICENSE\n   Version 3", "AGPL-3.0"),
        (
            "Permission is hereby granted, free of charge, furnished to do so.\n\nThe Software is provided",
            "MIT-0",
        ),
        ("By obtaining, using, and/or copying this software and/or its associated documentation", "MIT-CMU"),
        ("All rights reserved.", "see LICENSE"),
    ],
)
def test_what_stands_first_in_a_licence_file_tells_the_licence(text: str, licence: str) -> None:
    assert recognise_licence("LICENSE", text) == licence


def test_licence_files_are_told_by_name() -> None:
    names = ["LICENSE", "a/COPYING.txt", "LICENSE-MIT", "licence.md", "COPYING.LESSER", "UNLICENSE"]
    assert all(map(is_licence_file, names))
    assert not any(map(is_licence_file, ["license.py", "a/licensing.txt", "LICENSE.go", "README", "license"[:-1]]))


def test_the_nearest_folder_with_a_licence_counts(tmp_path: Path) -> None:
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    (tmp_path / "d").mkdir()
    (tmp_path / "LICENSE").write_text("Apache License")
    (tmp_path / "a" / "LICENSE-MIT").write_text("Permission is hereby granted, free of charge")
    (tmp_path / "a" / "LICENSE-APACHE").write_text("Apache License")
    nearest = NearestLicence(lambda folder: find_folder_licence(tmp_path, folder), "configured")
    assert nearest.find("a/b/c/x.py") == "Apache-2.0 OR MIT"
    assert nearest.find("a/x.py") == "Apache-2.0 OR MIT"
    assert nearest.find("d/x.py") == "Apache-2.0"
    assert NearestLicence(lambda _: "", "configured").find("a/b/c.py") == "configured"


@pytest.mark.parametrize(
    ("content", "licence"),
    [
        (b"// SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note\n", "GPL-2.0-only WITH Linux-syscall-note"),
        (b"/* SPDX-License-Identifier: mit or apache-2.0 */\n", "MIT OR Apache-2.0"),
        (b"# SPDX-License-Identifier: Made-Up-1.0\n", ""),
        (b"# SPDX-License-Identifier: MIT <- and more\n", "MIT"),
        (b"x = 1\n", ""),
        (b"x = 1\n" * 1000 + b"# SPDX-License-Identifier: MIT\n", ""),
    ],
)
def test_the_header_of_a_file_tells_its_licence(content: bytes, licence: str) -> None:
    assert find_header(content) == licence


@pytest.mark.parametrize(
    ("licence", "is_good"),
    [
        ("MIT", True),
        ("mit", True),
        ("GPL-2.0-only", False),
        ("MIT OR GPL-2.0-only", True),
        ("MIT AND GPL-2.0-only", False),
        ("MIT AND (GPL-2.0-only OR Apache-2.0)", True),
        ("MIT AND Apache-2.0 OR GPL-2.0-only", True),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("LGPL-2.1-or-later", True),
        ("LGPL-2.1+", True),
        ("unknown", False),
        ("see LICENSE", False),
        ("MIT and what follows", False),
        ("(MIT", False),
        ("", False),
        ("(" * 5000, False),
    ],
)
def test_an_allow_list_is_held_against_expressions(licence: str, is_good: bool) -> None:
    assert is_allowed(licence, frozenset({"MIT", "Apache-2.0", "LGPL-2.1-only"})) == is_good


def test_names_that_are_no_spdx_licences_are_found() -> None:
    assert find_unknown(["MIT", "unknown", "GPL", "BSD-3-Clause"]) == ["GPL"]


def test_licences_of_installed_packages_are_recognised_as_their_metadata_states_them() -> None:
    agreed = Counter[bool]()
    for distribution in itertools.islice(distributions(), 80):
        stated = "".join(distribution.metadata.get_all("License-Expression") or [])
        files = [file for file in distribution.files or [] if is_licence_file(str(file)) and ".dist-info" in str(file)]
        if stated and len(files) == 1:
            text = files[0].read_text(encoding="utf-8")
            agreed[is_allowed(stated, frozenset({recognise_licence(files[0].name, text)}))] += 1
    assert agreed.total() > 10
    assert agreed[True] > 0.9 * agreed.total()
