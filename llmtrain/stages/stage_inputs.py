"""What decides the result of a post-training stage, and its hash: section, seed, models, records, functions.

Two stages with equal hashes give the same model, so a finished one is not run again, and a changed file is noticed.
"""

import hashlib
import json
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any

from llmtrain.config.instructions import MADE_NAME
from llmtrain.config.ppo import FunctionReward, GuardsConfig, ModelReward, PpoConfig
from llmtrain.config.records import RecordsConfig
from llmtrain.config.reward import RewardConfig, ScoreFunction
from llmtrain.config.root import Config, PosttrainingConfig
from llmtrain.config.section import Section
from llmtrain.config.sft import SftConfig
from llmtrain.errors import ConfigError
from llmtrain.posttraining.model_digest import digest_model

# Raised when a stage computes something else from the same inputs.
CODE_VERSION = 3
# Keys that change what is written, not what is computed.
_FREE = {"log_every_steps", "save_every_steps", "keep_last", "evaluate_every_steps", "sample_table_rows"}


@dataclass(frozen=True)
class StageInputs:
    """All that a stage starts from."""

    stage: str
    models: dict[str, Path]
    """Folders by role."""
    parts: dict[str, str]
    """Name of each input -> its digest."""
    section: dict[str, Any]
    """The section as plain values, to tell which keys changed."""

    @property
    def digest(self) -> str:
        """One hash of all parts."""
        return hashlib.sha256(json.dumps(self.parts, sort_keys=True).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """As `stage.json` holds it."""
        models = {role: str(path) for role, path in self.models.items()}
        return {
            "stage": self.stage,
            "inputs": self.digest,
            "parts": self.parts,
            "models": models,
            "section": self.section,
        }

    def list_changes(self, before: dict[str, Any]) -> str:
        """Names of the inputs that differ from a stage.json."""
        old = before.get("parts", {})
        names = sorted(name for name in old.keys() | self.parts.keys() if old.get(name) != self.parts.get(name))
        shown = [self._list_keys(before) if name == f"section {self.stage}" else name for name in names]
        return ", ".join(shown)

    def _list_keys(self, before: dict[str, Any]) -> str:
        """The keys of the section that differ, with both values."""
        old = before.get("section", {})
        keys = [key for key in old.keys() | self.section.keys() if old.get(key) != self.section.get(key)]
        values = [f"{self.stage}.{key}: {old.get(key)} there, {self.section.get(key)} here" for key in sorted(keys)]
        return "; ".join(values) or f"section {self.stage}"


def fill_in(config: PosttrainingConfig) -> PosttrainingConfig:
    """The configuration with the records of section `instructions` where a stage names none.

    Prompts of `ppo` and of pairs that the model itself answers are those of `sft`.
    """
    sft, reward, ppo = config.sft, config.reward, config.ppo
    if isinstance(config, Config) and config.instructions is not None:
        made = config.data.folder / MADE_NAME
        kinds = config.instructions.kinds
        if sft is not None and not sft.data:
            sft = sft.model_copy(update={"data": _list_made(made / "instructions", kinds)})
        if reward is not None and not reward.data and reward.sampled is None:
            reward = reward.model_copy(update={"data": _list_made(made / "preferences", kinds)})
    if ppo is not None and not ppo.prompts and sft is not None:
        ppo = ppo.model_copy(update={"prompts": sft.data})
    return config.model_copy(update={"sft": sft, "reward": reward, "ppo": ppo})


def find_inputs(config: PosttrainingConfig, name: str) -> StageInputs:
    """Everything a stage starts from; all of it is there.

    Raises:
        ConfigError: the section or a parent is missing.
        CheckpointError: a parent is no model.
    """
    config = fill_in(config)
    section = getattr(config, name)
    if section is None:
        raise ConfigError(f"{name}: the configuration has no section `{name}`. Add it, see docs/posttraining.md.")
    models = _find_models(config, section)
    parts = {
        "code": str(CODE_VERSION),
        "seed": str(config.run.seed),
        f"section {name}": _hash_section(section, _find_free(section)),
    }
    if isinstance(section, RewardConfig) and section.sampled is not None and config.sft is not None:
        parts["sft.data"] = _hash_section(config.sft, set(SftConfig.model_fields) - {"data"})
    parts |= {f"model {role}": _digest_model(path, role, name) for role, path in models.items()}
    for path in _list_files(config, section):
        if path.is_file():
            with path.open("rb") as file:
                parts[f"file {path}"] = hashlib.file_digest(file, "sha256").hexdigest()
    return StageInputs(name, models, parts, section.model_dump(mode="json", exclude=_find_free(section)))


def _find_free(section: SftConfig | RewardConfig | PpoConfig) -> set[str]:
    # A run that a guard ends keeps the best of the models that were evaluated.
    evaluations_decide = isinstance(section, PpoConfig) and section.guards != GuardsConfig()
    return _FREE - {"evaluate_every_steps"} if evaluations_decide else _FREE


def _find_models(config: PosttrainingConfig, section: SftConfig | RewardConfig | PpoConfig) -> dict[str, Path]:
    folder = config.run.folder
    match section:
        case SftConfig():
            return {"model": section.model or folder / "export"}
        case RewardConfig():
            return {"model": section.model or folder / "sft" / "model"}
        case PpoConfig():
            terms = {name: term for name, term in section.rewards.items() if isinstance(term, ModelReward)}
            rewards = {f"reward {name}": term.path or folder / "reward" / "model" for name, term in terms.items()}
            return {"model": section.model or folder / "sft" / "model"} | rewards


def _digest_model(path: Path, role: str, stage: str) -> str:
    if not (path / "config.json").is_file():
        before = "export RUN" if stage == "sft" else "reward CONFIG" if role.startswith("reward ") else "sft CONFIG"
        raise ConfigError(
            f"{stage}: {role} {path}: no model there. Name a Hugging Face folder, or make it first: "
            f"`llmtrain {before}`, or all stages in order: `llmtrain run CONFIG`."
        )
    return digest_model(path)


def _list_files(config: PosttrainingConfig, section: SftConfig | RewardConfig | PpoConfig) -> list[Path]:
    records: dict[str, RecordsConfig] = {}
    functions: list[ScoreFunction] = []
    match section:
        case SftConfig():
            records = section.data
        case RewardConfig():
            records = section.data
            if section.sampled is not None:
                functions = [section.sampled.label]
                records = records | (config.sft.data if config.sft is not None else {})
        case PpoConfig():
            records = section.prompts
            functions = [term for term in section.rewards.values() if isinstance(term, FunctionReward)]
            functions += [section.gold] if section.gold is not None else []
    patterns = [pattern for source in records.values() for pattern in source.paths]
    found = [path for pattern in patterns for path in sorted(glob(pattern))]  # noqa: PTH207  absolute ones, too
    return [*map(Path, found), *(term.file for term in functions)]


def _list_made(folder: Path, kinds: tuple[str, ...]) -> dict[str, RecordsConfig]:
    # Some texts yield no record of a kind; before anything is made, all are named.
    made = [kind for kind in kinds if (folder / f"{kind}.jsonl").is_file()]
    return {kind: RecordsConfig(paths=(str(folder / f"{kind}.jsonl"),)) for kind in made or kinds}


def _hash_section(section: Section, without: set[str]) -> str:
    # In the order of the file: records are read, and the critic is found, in it.
    return _hash(json.dumps(section.model_dump(mode="json", exclude=without)).encode())


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
