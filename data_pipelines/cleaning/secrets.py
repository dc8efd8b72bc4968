"""Secrets in text: keys and tokens that are known by their form, private keys, and passwords by what stands before."""

import math
import re
from collections import Counter
from collections.abc import Callable

SECRET = "<SECRET>"

# What a form must contain for its pattern to be tried at all, and the pattern; as the issuers document them.
_FORMS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (mark, re.compile(pattern))
    for mark, pattern in (
        ("AKIA", r"\bAKIA[A-Z2-7]{16}\b"),  # Amazon Web Services
        ("ASIA", r"\bASIA[A-Z2-7]{16}\b"),
        ("ghp_", r"\bghp_[A-Za-z0-9]{36,255}\b"),  # GitHub
        ("gho_", r"\bgho_[A-Za-z0-9]{36,255}\b"),
        ("ghu_", r"\bghu_[A-Za-z0-9]{36,255}\b"),
        ("ghs_", r"\bghs_[A-Za-z0-9]{36,255}\b"),
        ("ghr_", r"\bghr_[A-Za-z0-9]{36,255}\b"),
        ("github_pat_", r"\bgithub_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}\b"),
        ("glpat-", r"\bglpat-[A-Za-z0-9_-]{20,}"),  # GitLab
        ("xox", r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}"),  # Slack
        ("hooks.slack.com", r"(?<=hooks\.slack\.com/services/)T[A-Z0-9]{8,}/B[A-Z0-9]{8,}/[A-Za-z0-9]{20,}"),
        ("AIza", r"\bAIza[A-Za-z0-9_-]{35}(?![A-Za-z0-9_-])"),  # Google
        ("_live_", r"\b[rs]k_live_[A-Za-z0-9]{16,}\b"),  # Stripe
        ("sk-", r"(?<![\w-])sk-(?:proj-|ant-[a-z0-9]+-)?(?=[A-Za-z_-]*\d)[A-Za-z0-9_-]{32,}"),  # OpenAI, Anthropic
        ("hf_", r"\bhf_[A-Za-z]{34}\b"),  # Hugging Face
        ("npm_", r"\bnpm_[A-Za-z0-9]{36}\b"),
        ("pypi-", r"\bpypi-AgE[A-Za-z0-9_-]{50,}"),
        ("SG.", r"\bSG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])"),  # SendGrid
        ("eyJ", r"\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{10,}"),  # JSON web token
    )
)
_PRIVATE_KEY = re.compile(
    r"(-----BEGIN (?P<kind>[A-Z ]{0,30}PRIVATE KEY(?: BLOCK)?)-----)"
    r"(?:(?!-----)[\s\S]){64,20000}?(-----END (?P=kind)-----)"
)
_ASSIGNED = re.compile(
    r"""(?ix)(?P<before>
    (?:api|access|auth|secret|private|client|account)[_-]?(?:access[_-]?)?(?:key|token|secret) | passw(?:or)?d | secret
    )(?P<between> ["']? \s{0,4} (?:=>|:=|[:=]) \s{0,4} ["'] )(?P<value> [\w+/=.~!@$%^&*-]{16,128} )(?=["'])"""
)
_QUOTED_VALUE = re.compile(r"""[:=>]\s{0,4}["'][\w+/=.~!@$%^&*-]{16,128}["']""")
_MIN_ENTROPY_BITS = 3.5
_EXAMPLE = re.compile(r"(?i)example|sample|dummy|placeholder|changeme|your|xxxx|0000|1234|abcd")


def mask_secrets(text: str) -> str:
    """The text with a placeholder for each secret."""
    for mark, pattern in _FORMS:
        if mark in text:
            text = pattern.sub(_unless_example(lambda match: SECRET), text)
    if "PRIVATE KEY" in text:
        text = _PRIVATE_KEY.sub(lambda match: f"{match[1]}\n{SECRET}\n{match[3]}", text)
    if _QUOTED_VALUE.search(text):
        text = _ASSIGNED.sub(_mask_assigned, text)
    return text


def compute_entropy(text: str) -> float:
    """Bits per character, by the frequencies of the characters in the text itself."""
    return -sum(count / len(text) * math.log2(count / len(text)) for count in Counter(text).values())


def _unless_example(replace: Callable[[re.Match[str]], str]) -> Callable[[re.Match[str]], str]:
    return lambda match: match[0] if "EXAMPLE" in match[0] else replace(match)


def _mask_assigned(match: re.Match[str]) -> str:
    value = match["value"]
    kinds = sum(any(is_kind(character) for character in value) for is_kind in (str.islower, str.isupper, str.isdigit))
    if kinds < 2 or not any(map(str.isdigit, value)) or _EXAMPLE.search(value):
        return match[0]
    if compute_entropy(value) < _MIN_ENTROPY_BITS:
        return match[0]
    return f"{match['before']}{match['between']}{SECRET}"
