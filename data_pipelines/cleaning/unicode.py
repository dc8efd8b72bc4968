"""Step `repair_unicode`: text that was decoded with the wrong encoding ("mojibake") is decoded with the right one.

Source: ftfy (Speer 2019), with everything switched off that would touch text that is as its author wrote it: HTML
entities, curly quotes, ligatures and wide letters stay.
"""

import unicodedata

from data_pipelines.cleaning.subject import Subject


class RepairUnicode:
    """Changes text, drops nothing."""

    def __init__(self) -> None:
        import ftfy

        self._fix = ftfy.fix_text
        self._settings = ftfy.TextFixerConfig(
            unescape_html=False,
            remove_terminal_escapes=False,
            fix_latin_ligatures=False,
            fix_character_width=False,
            uncurl_quotes=False,
            fix_line_breaks=False,
            fix_surrogates=False,
            remove_control_chars=False,
            normalization=None,
            explain=False,
        )

    def __call__(self, subject: Subject) -> None:
        """Repair the text; ASCII has nothing to repair."""
        if not subject.text.isascii():
            fixed = self._fix(subject.text, self._settings)
            if fixed != subject.text:
                subject.replace(unicodedata.normalize("NFC", fixed))
