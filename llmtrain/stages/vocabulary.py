"""The size of the vocabulary a run is planned with, before or after its data is prepared."""

from llmtrain.config.root import Config
from llmtrain.errors import ConfigError


def find_vocab_size(config: Config) -> int:
    """Of the tokenizer on disk, of the one the corpus section takes or would train, or of section model.

    Raises:
        ConfigError: there is none of these.
    """
    folder = config.data.folder / "tokenizer"
    if folder.is_dir():
        from llmtrain.tokenizer.sentencepiece_tokenizer import Tokenizer

        return Tokenizer.load(folder).vocab_size
    if config.corpus is not None and config.corpus.tokenizer.folder is not None:
        from llmtrain.tokenizer.sentencepiece_tokenizer import Tokenizer

        return Tokenizer.load(config.corpus.tokenizer.folder).vocab_size
    planned = config.corpus.tokenizer.vocab_size if config.corpus is not None else config.model.vocab_size
    if planned is None:
        raise ConfigError(
            f"{folder}: no tokenizer here, so the size of the vocabulary is not known. To plan without data add "
            "model.vocab_size=N; to train, prepare the data first: `llmtrain data prepare CONFIG`."
        )
    return planned
