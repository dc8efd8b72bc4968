"""Real text that every Python has: modules of its standard library."""

import functools
import sysconfig
from pathlib import Path

MODULES = (
    "argparse",
    "ast",
    "bisect",
    "calendar",
    "csv",
    "difflib",
    "fractions",
    "heapq",
    "pprint",
    "shlex",
    "textwrap",
)


@functools.cache
def stdlib_texts() -> tuple[str, ...]:
    """Source of some modules, about 400 kB."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    return tuple((folder / f"{name}.py").read_text(encoding="utf-8") for name in MODULES)
