"""The data of a run, opened and checked to belong together."""

from collections.abc import Mapping
from dataclasses import dataclass

from llmtrain.config.data import DataConfig
from llmtrain.errors import DataError
from llmtrain.process.world import World
from llmtrain.shards.reader import ShardedTokens, open_data
from llmtrain.tokenizer.sentencepiece_tokenizer import Tokenizer


@dataclass(frozen=True)
class TrainingData:
    """The tokenizer and the shards of both splits, by source."""

    tokenizer: Tokenizer
    train: Mapping[str, ShardedTokens]
    validation: Mapping[str, ShardedTokens]

    @property
    def identity(self) -> dict[str, str]:
        """sha256 of the tokenizer and of each training manifest."""
        shards = {f"source {name}": opened.manifest_sha256 for name, opened in self.train.items()}
        return {"tokenizer": self.tokenizer.sha256, **shards}


def open_training_data(config: DataConfig, world: World) -> TrainingData:
    """Open what section `data` names; with `data.verify: full` the ranks share the work of checking every byte.

    Raises:
        DataError: something is missing or damaged, or the shards were made with another tokenizer.
    """
    tokenizer = Tokenizer.load(config.folder / "tokenizer")
    train = open_data(config.folder, "train", list(config.sources))
    validation = open_data(config.folder, "validation", list(train))
    for opened in (*train.values(), *validation.values()):
        if opened.manifest.tokenizer_sha256 != tokenizer.sha256:
            raise DataError(
                f"{opened.folder}: was made with tokenizer {opened.manifest.tokenizer_sha256[:12]}, "
                f"{config.folder / 'tokenizer'} holds {tokenizer.sha256[:12]}. Run `llmtrain data prepare` again."
            )
        if config.verify == "full":
            opened.verify(world.rank, world.world_size)
    return TrainingData(tokenizer, train, validation)
