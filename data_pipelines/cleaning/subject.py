"""The text that the steps of cleaning look at: what several rules count is counted once."""

from functools import cached_property


class Subject:
    """One document under cleaning. A step reads it, may replace its text, and may note its language."""

    def __init__(self, text: str, language: str = "") -> None:
        self.text = text
        self.language = language
        """ISO 639-1 code; empty as long as no step has looked."""

    def replace(self, text: str) -> None:
        """Change the text; what was counted of the old one is forgotten."""
        self.text = text
        for name in ("lines", "words"):
            self.__dict__.pop(name, None)

    @cached_property
    def lines(self) -> list[str]:
        """Lines without their ends."""
        return self.text.splitlines()

    @cached_property
    def words(self) -> list[str]:
        """Words: what white space separates, as in the papers the rules come from."""
        return self.text.split()
