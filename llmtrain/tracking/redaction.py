"""Nothing secret leaves the run folder: passwords in URLs and values of keys that sound secret are masked."""

import re

_MASK = "***"
_USER_IN_URL = re.compile(r"(?<=://)[^/\s\"']+@")
_SECRET_VALUE = re.compile(
    r"(?i)\b([\w.-]*(?:token|secret|passw|api_?key|credential)[\w-]*\s*[:=]\s*)(?!\d+\s*$)\S+$", re.M
)
# Keys of ours that hold counts of tokens, not tokens of access.
_HARMLESS = re.compile(r"(?i)(tokens|tokenizer|special_token)")


def redact(text: str) -> str:
    """Mask user names and passwords in URLs and values after secret-sounding keys."""
    text = _USER_IN_URL.sub(f"{_MASK}@", text)
    return _SECRET_VALUE.sub(lambda match: match[0] if _HARMLESS.search(match[1]) else match[1] + _MASK, text)
