"""Step `mask_personal_data`: placeholders for e-mail addresses, public IP addresses and secrets.

A placeholder depends on nothing but what it stands for, so the result is the same in whatever order documents come, and
masking twice changes nothing. Examples, private addresses and version numbers are no personal data and stay.

Source of the kinds and of placeholders: Li et al. 2023, "StarCoder", section 4; address ranges: RFC 6890, 5737, 3849,
example domains: RFC 2606.
"""

import ipaddress
import re

from data_pipelines.cleaning.secrets import mask_secrets
from data_pipelines.cleaning.subject import Subject
from llmtrain.config.cleaning import MaskPersonalDataStep

EMAIL, IP_ADDRESS = "<EMAIL>", "<IP_ADDRESS>"

_EMAIL = re.compile(
    r"(?<![\w.+%/-])(?P<local>[A-Za-z0-9](?:[\w.+%-]{0,63}))@(?P<host>(?:[A-Za-z0-9-]{1,63}\.){1,8}(?P<top>[A-Za-z]{2,24}))"
    r"(?![\w-]|\.[A-Za-z0-9]|[(\[])"
)
# Top-level domains: those of countries have two letters; of the others those in use for mail.
_TOP_DOMAINS = """
    com org net edu gov mil int info biz name pro aero coop museum jobs mobi travel arpa academy agency app art
    blog cloud club company consulting design dev digital email engineering events expert finance foundation
    global group guru health host house international land life live llc ltd media network news online page
    photography press services shop site social software solutions space store studio support systems tech
    technology today tools training university website wiki work works world xyz zone
"""
_MAIL_DOMAINS = frozenset(_TOP_DOMAINS.split())
_EXAMPLE_HOST = re.compile(r"(?i)(?:^|\.)(?:example(?:\.[a-z]{2,3}){1,2}|(?:my|your)?(?:domain|company)\.com)$")
_RESERVED_TOP = frozenset(("test", "example", "invalid", "localhost", "local"))
_LOGINS = frozenset(("git", "hg", "svn", "ssh", "root", "anonymous"))

_IPV4 = re.compile(r"(?<![\w.-])(?:\d{1,3}\.){3}\d{1,3}(?![\w-]|\.\w)")
# All public addresses of version 6 lie in 2000::/3.
_IPV6 = re.compile(r"(?<![\w:.])[23][0-9A-Fa-f]{3}:[0-9A-Fa-f:]{2,34}(?![\w:]|\.\w)")
# Begin with a rare character and are therefore quickly found missing.
_MAYBE_IPV4 = re.compile(r"\.\d{1,3}\.\d")
_MAYBE_IPV6 = re.compile(r":[0-9A-Fa-f]{0,4}:")
_BEFORE_VERSION = re.compile(
    r"(?i)(?:\b(?:v|ver|versions?|releases?|rev|revision|build|section|chapter|oid|rfc)\W{0,3}"
    r"|\bversion[\w ]{0,12}[:=]?\s?[\"']?|[\w)\]]/|(?:[<>=~!]=|[~^])\s?)$"
)
_BEFORE = 24
_HEADING = re.compile(r"[ \t]+[A-Z][a-z]")
_LIST_MARKS = " \t-*#>\u2022"


class MaskPersonalData:
    """Changes text, drops nothing."""

    def __init__(self, config: MaskPersonalDataStep) -> None:
        self._config = config

    def __call__(self, subject: Subject) -> None:
        """Put the placeholders."""
        text = subject.text
        if self._config.secrets:
            text = mask_secrets(text)
        if self._config.emails and "@" in text:
            text = _EMAIL.sub(_mask_email, text)
        if self._config.ip_addresses:
            if _MAYBE_IPV4.search(text):
                text = _IPV4.sub(_mask_ipv4, text)
            if _MAYBE_IPV6.search(text):
                text = _IPV6.sub(_mask_ipv6, text)
        subject.replace(text)


def _mask_email(match: re.Match[str]) -> str:
    host, top = match["host"].lower(), match["top"].lower()
    if len(top) > 2 and top not in _MAIL_DOMAINS:
        return match[0]
    if top in _RESERVED_TOP or _EXAMPLE_HOST.search(host) or match["local"].lower() in _LOGINS:
        return match[0]
    return EMAIL


def _mask_ipv4(match: re.Match[str]) -> str:
    # Three numbers of one digit are a version or a section; of all public addresses they are 0.02 %.
    if sum(len(part) == 1 for part in match[0].split(".")) >= 3 or not _is_public(match[0]):
        return match[0]
    text, start, end = match.string, match.start(), match.end()
    if _BEFORE_VERSION.search(text[max(0, start - _BEFORE) : start]):
        return match[0]
    line = text[text.rfind("\n", 0, start) + 1 : start]
    if not line.strip(_LIST_MARKS) and _HEADING.match(text, end):  # "12.1.3.10 Numbered heading"
        return match[0]
    return IP_ADDRESS


def _mask_ipv6(match: re.Match[str]) -> str:
    address = match[0].rstrip(":") if not match[0].endswith("::") else match[0]
    return IP_ADDRESS + match[0][len(address) :] if _is_public(address) else match[0]


def _is_public(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_global
    except ValueError:
        return False
