"""Documents of a prepared data folder -> instructions and preferences, each kind a file, with a manifest.

documents/*.jsonl.zst    ->    instructions/KIND.jsonl      conversations of one question and its answer
                               preferences/KIND.jsonl       the same questions, each with a worse answer too
                               manifest.json                what they were made of, with what, and what was left out
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from data_pipelines.document import Document, hash_file, read_documents
from data_pipelines.instructions.definition import find_definitions
from data_pipelines.instructions.docstring import find_docstring_tasks
from data_pipelines.instructions.draft import Draft, Sample
from data_pipelines.instructions.explain import find_explanations
from data_pipelines.instructions.manual import find_manual_entries
from data_pipelines.instructions.preferences import describe_balance, make_preferences
from data_pipelines.instructions.section import find_sections
from llmtrain.config.instructions import InstructionKind, InstructionsConfig
from llmtrain.conversations.records import Conversation, Message, Preference, identify
from llmtrain.errors import DataError
from llmtrain.process.folder_lock import locked_folder
from llmtrain.shards.manifest import MANIFEST_NAME

MAKER_VERSION = 1
"""Counts changes of what is made of the same documents: what was made before is then made again."""

_ENDING = ".jsonl.zst"
_MAKERS: dict[InstructionKind, Callable[[Document, InstructionsConfig], Iterator[Draft]]] = {
    "definition": find_definitions,
    "section": find_sections,
    "docstring": find_docstring_tasks,
    "explain": find_explanations,
    "manual": find_manual_entries,
}


def make_instructions(
    documents_folder: Path, output: Path, config: InstructionsConfig, licences: Mapping[str, str], seed: int
) -> dict[str, Any]:
    """Make what is not made yet; equal documents, settings and seed give equal files.

    Args:
        documents_folder: folder of `SOURCE.jsonl.zst`, as `llmtrain data prepare` writes it: `DATA/documents`.
        output: folder to write; it appears when it is complete.
        config: what to make.
        licences: by source; documents of other sources count with their own.
        seed: decides which records stay where there are too many, and how worse answers are made.

    Returns:
        The manifest: for every file its records, sha256, licence, parents and what was left out by reason.

    Raises:
        ConfigError: another process writes this folder.
        DataError: there are no documents, nothing can be made of them, or the folder holds something else.
    """
    parents = {path.name.removesuffix(_ENDING): path for path in sorted(documents_folder.glob(f"*{_ENDING}"))}
    if not parents:
        raise DataError(f"{documents_folder}: holds no documents (*{_ENDING}). Run `llmtrain data prepare` first.")
    described = {
        name: {"file": path.name, "sha256": hash_file(path), "licence": licences.get(name, "")}
        for name, path in parents.items()
    }
    settings = {"maker_version": MAKER_VERSION, "seed": seed, "config": config.model_dump(mode="json")}
    inputs = json.dumps([settings, described], sort_keys=True)
    inputs_sha256 = hashlib.sha256(inputs.encode()).hexdigest()
    head: dict[str, Any] = {**settings, "inputs_sha256": inputs_sha256}
    try:
        with locked_folder(output.parent, f"{output.name}.lock", "a maker of instructions", "Wait for it."):
            made = _find_made(output, inputs_sha256)
            if made is not None:
                return made
            return _write_all(output, head, described, _draft_all(parents, licences, config, seed), seed)
    except OSError as error:
        raise DataError(f"{output}: could not be written: {error}. Free some space, then run it again.") from error


def _draft_all(
    parents: Mapping[str, Path], licences: Mapping[str, str], config: InstructionsConfig, seed: int
) -> dict[InstructionKind, Sample]:
    samples = {kind: Sample(config, seed) for kind in config.kinds}
    for name, path in parents.items():
        for document in read_documents(path):
            licence = licences.get(name) or document.licence
            for kind, sample in samples.items():
                for draft in _MAKERS[kind](document, config):
                    sample.add(replace(draft, parent=name, licence=licence))
    return samples


def _write_all(
    output: Path,
    head: dict[str, Any],
    parents: dict[str, dict[str, str]],
    samples: dict[InstructionKind, Sample],
    seed: int,
) -> dict[str, Any]:
    temporary = output.with_name(f"{output.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        files: dict[str, dict[str, Any]] = {}
        for kind, sample in samples.items():
            drafts = sample.take()
            if not drafts:
                continue
            told = {
                "licence": ", ".join(sorted({draft.licence for draft in drafts})),
                "parents": [parents[name] for name in sorted({draft.parent for draft in drafts})],
                "maker_version": MAKER_VERSION,
            }
            conversations = [_to_conversation(kind, draft) for draft in drafts]
            left_out = {"candidates": sample.seen, "left_out": dict(sorted(sample.left_out.items()))}
            name = f"instructions/{kind}.jsonl"
            files[name] = _write(temporary / name, conversations) | told | left_out
            preferences, reasons = make_preferences(kind, drafts, seed)
            balance = {"candidates": len(drafts), "left_out": dict(reasons), **describe_balance(preferences)}
            name = f"preferences/{kind}.jsonl"
            files[name] = _write(temporary / name, preferences) | told | balance
        if not files:
            raise DataError(f"{output}: nothing can be made of these documents. Choose other kinds, or longer limits.")
        manifest = {**head, "files": files}
        (temporary / MANIFEST_NAME).write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", "utf-8")
        _replace(temporary, output)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return manifest


def _to_conversation(kind: str, draft: Draft) -> Conversation:
    messages = (Message("user", draft.prompt), Message("assistant", draft.answer))
    return Conversation(identify(messages), kind, messages)


def _write(path: Path, records: Iterable[Conversation | Preference]) -> dict[str, Any]:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(record.to_dict(), ensure_ascii=False) + "\n" for record in records]
    path.write_text("".join(lines), encoding="utf-8")
    return {"records": len(lines), "bytes": path.stat().st_size, "sha256": hash_file(path)}


def _find_made(output: Path, inputs_sha256: str) -> dict[str, Any] | None:
    """The manifest of what is there, if it was made of the same and no file was changed.

    Raises:
        DataError: the folder holds something else, which must not be replaced.
    """
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return None
    try:
        manifest: dict[str, Any] = json.loads((output / MANIFEST_NAME).read_bytes())
        found, files = manifest["inputs_sha256"], manifest["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{output}: holds something that was not made by this. Choose another folder.") from error
    if found != inputs_sha256:
        return None
    same = all((output / name).is_file() and hash_file(output / name) == told["sha256"] for name, told in files.items())
    return manifest if same else None


def _replace(temporary: Path, output: Path) -> None:
    """Put a complete folder in the place of an older one, which stays until the new one can take its name."""
    old = output.with_name(f"{output.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if output.exists():
        output.rename(old)
    temporary.rename(output)
    shutil.rmtree(old, ignore_errors=True)
