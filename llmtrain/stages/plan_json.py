"""What command `plan` prints with `--json`.

In: plain values. Out: JSON text; null for what is infinite or not known, as JSON has no such numbers.
"""

import json
import math
from typing import Any


def render_json(values: dict[str, Any]) -> str:
    """Indented JSON that every parser reads."""
    return json.dumps(_make_finite(values), indent=2, allow_nan=False)


def _make_finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _make_finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_make_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
