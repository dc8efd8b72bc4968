from data_pipelines.cleaning.subject import Subject


def test_what_was_counted_is_forgotten_when_the_text_changes() -> None:
    subject = Subject("one two\n\none two\n", "en")
    subject.notes.append("seen")
    assert (len(subject.words), len(subject.paragraphs), subject.word_characters) == (4, 2, 12)
    assert (subject.repeated_lines.fraction, len(subject.repeated_ngrams)) == (0.5, 1)
    subject.replace("three\n")
    assert (subject.words, subject.paragraphs, subject.word_characters) == (["three"], ["three"], 5)
    assert (subject.repeated_lines.fraction, subject.repeated_ngrams) == (0.0, [])
    assert (subject.language, subject.notes) == ("en", ["seen"])


def test_an_equal_text_is_no_change() -> None:
    text = "a text\n"
    subject = Subject(text)
    subject.replace("".join(["a ", "text\n"]))
    assert subject.text is text


def test_lines_and_paragraphs_that_are_blank_do_not_count() -> None:
    subject = Subject("  one\n\n\n \n two \n")
    assert subject.filled_lines == ["one", "two"]
    assert subject.paragraphs == ["one", "two"]
