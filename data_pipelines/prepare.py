"""Section `corpus`: raw text -> documents -> tokenizer -> shards, each stage resumable and done once.

    list     units of every source (crawls the site of pydoc if asked to)
    extract  read, mend, judge, sign            parallel over units         work/SOURCE/UNIT.jsonl.zst, signatures/
    decide   what repeats, over all sources     parallel over hashes        work/repeats
    dedup    leave out what repeats             one pass, in order          documents/SOURCE.jsonl.zst
    train    the tokenizer, unless there is one that still fits             tokenizer/
    write    token shards, train and validation                             shards/SOURCE/SPLIT, shards/sources.json
    report   what was kept and dropped, and why                             report.html, report.md, report.json

What a stage does depends on its fingerprint: its configuration, its inputs and the stages before it. The result does
not depend on the number of workers.
"""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from data_pipelines.account import Account
from data_pipelines.deduplication.apply import apply_verdict, describe_clusters, find_origins, name_survivors
from data_pipelines.deduplication.columns import Run, has_run, read_runs
from data_pipelines.deduplication.decide import Verdict, decide
from data_pipelines.document import read_documents, write_documents
from data_pipelines.documents_folder import DocumentsFolder
from data_pipelines.extract import extract_unit, fingerprint, fingerprint_unit
from data_pipelines.make_tokenizer import make_tokenizer
from data_pipelines.progress import show_stage
from data_pipelines.provenance import describe_inputs, describe_versions
from data_pipelines.report import write_report
from data_pipelines.sources.listing import list_units
from data_pipelines.sources.unit import DATA_MARK, Unit
from data_pipelines.splits import check_splits
from data_pipelines.stages import Stages
from data_pipelines.worker_process import end_with_parent, worker_pool
from data_pipelines.write_shards import write_shards
from llmtrain.config.cleaning import StepConfig
from llmtrain.config.corpus import CodeSource, CorpusConfig, DocumentsSource, FillInTheMiddle
from llmtrain.config.data import DataConfig
from llmtrain.config.deduplicate import DeduplicateConfig
from llmtrain.config.root import Config
from llmtrain.errors import ConfigError, DataError
from llmtrain.process.folder_lock import locked_folder
from llmtrain.shards.manifest import MANIFEST_VERSION, read_manifest
from llmtrain.shards.reader import ShardedTokens
from llmtrain.shards.source_list import write_source_list
from llmtrain.tokenizer.sentencepiece_tokenizer import Tokenizer


def prepare(config: Config, console: Console | None = None) -> None:
    """Do what is not done yet of section `corpus`, into `data.folder`.

    Args:
        config: the resolved configuration.
        console: where progress goes; default standard error.

    Raises:
        ConfigError: there is no section `corpus`, or another process prepares this folder.
        DataError: an input is missing or damaged, a source is empty, the disk is full.
    """
    with _hold(config, console, "a preparation") as preparation:
        preparation.make_documents()
        preparation.make_tokenizer()
        preparation.make_shards()
        preparation.make_report()


def extract_share(config: Config, task: int, tasks: int, console: Console | None = None) -> None:
    """Extract and clean one of several equal shares of the units; several tasks may run at once, on any machines.

    `prepare` then finds their parts and goes on from there; what a task left undone it does itself.

    Args:
        config: the resolved configuration.
        task: number of the share, from 0 on.
        tasks: number of shares.
        console: where progress goes; default standard error.

    Raises:
        ConfigError: there is no such share, or this task or `prepare` runs already.
        DataError: as `prepare`.
    """
    if not 0 <= task < tasks:
        raise ConfigError(f"--task {task} of --tasks {tasks}: tasks are numbered from 0 to {tasks - 1}.")
    with _hold(config, console, f"task {task}", task=task) as preparation:
        preparation.extract_share(task, tasks)


@contextmanager
def _hold(config: Config, console: Console | None, user: str, task: int | None = None) -> Iterator["_Preparation"]:
    if config.corpus is None:
        raise ConfigError(
            "corpus: the section is missing, so there is nothing to prepare. Add one, see docs/prepare-data.md."
        )
    folder, remedy = config.data.folder, "Wait for it, or choose another data.folder."
    try:
        with ExitStack() as stack:
            stack.enter_context(locked_folder(folder, DATA_MARK, user, remedy, is_shared=task is not None))
            if task is not None:
                stack.enter_context(locked_folder(folder / "work", f"task-{task}.lock", user, remedy))
            yield _Preparation(config.corpus, config.data, console or Console(stderr=True, highlight=False))
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be read or written: {error}. Mend that, then run `llmtrain data prepare` again: "
            "finished stages are kept."
        ) from error


_Job = tuple[Unit, list[StepConfig], Path, Path, DeduplicateConfig]
"""A unit, its cleaning, the part to write, and the columns to write for deduplication."""


class _Preparation:
    """One data folder being prepared."""

    def __init__(self, corpus: CorpusConfig, data: DataConfig, console: Console) -> None:
        self._corpus, self._folder, self._console = corpus, data.folder, console
        self._checks_bytes = data.verify == "full"
        self._stages = Stages(data.folder)
        self._documents = DocumentsFolder(data.folder, self._stages, checks_bytes=self._checks_bytes)
        self._workers = corpus.workers or len(os.sched_getaffinity(0))
        self._documents_print: dict[str, str] = {}
        self._units: dict[str, list[Unit]] = {}
        self._tokenizer: Tokenizer

    def make_documents(self) -> None:
        """Extract and deduplicate every source."""
        units = self._list_units()
        self._extract(self._list_jobs(units))
        missing = [name for name in units if not self._has_documents(name)]
        if missing:
            self._deduplicate(missing, self._decide(missing))
        shutil.rmtree(self._folder / "work", ignore_errors=True)
        self._remove_stale_columns()

    def extract_share(self, task: int, tasks: int) -> None:
        """Extract every `tasks`-th unit, the largest first, so that shares are about equal."""
        self._extract(self._list_jobs(self._list_units())[task::tasks])

    def make_tokenizer(self) -> None:
        """Keep, take or train the tokenizer."""
        self._tokenizer = make_tokenizer(
            self._folder / "tokenizer",
            self._corpus.tokenizer,
            list(self._corpus.sources),
            self._corpus.validation_fraction,
            self._documents,
            self._stages,
            self._console,
        )

    def make_shards(self) -> None:
        """Tokenize every source."""
        for name in self._corpus.sources:
            folder, stage = self._folder / "shards" / name, f"shards/{name}"
            provenance, settings = self._describe(name), (self._corpus.validation_fraction, self._corpus.shard_tokens)
            own_print = fingerprint(MANIFEST_VERSION, self._tokenizer.sha256, settings, provenance)
            if not self._is_current(stage, own_print, partial(self._check_shards, name, folder)):
                self._write_source(name, folder, provenance, own_print)
        manifests = {name: self._stages.result(f"shards/{name}")["manifests"] for name in self._corpus.sources}
        write_source_list(self._folder, self._tokenizer.sha256, manifests)
        for stale in sorted(set(_subfolders(self._folder / "shards")) - set(self._corpus.sources)):
            told = "not in corpus.sources any more; left as they are, but not part of the data"
            self._console.print(f"shards of {stale}: {told}", markup=False)

    def make_report(self) -> None:
        """Write report.html, report.md and report.json."""
        results = {
            name: {**self._stages.result(f"documents/{name}"), **self._stages.result(f"shards/{name}")}
            for name in self._corpus.sources
        }
        path = write_report(self._folder, results)
        self._console.print(f"report                 {path}", markup=False)

    def _list_units(self) -> dict[str, list[Unit]]:
        """Units by source; notes what the documents of each source depend on."""
        units = {
            name: list(dict.fromkeys(list_units(name, source, self._folder)))
            for name, source in self._corpus.sources.items()
        }
        self._units, before = units, ""
        for name, own in units.items():
            prints = [self._unit_print(name, unit) for unit in own]
            before = self._documents_print[name] = fingerprint("documents", before, name, prints)
        return units

    def _list_jobs(self, units: dict[str, list[Unit]]) -> list[_Job]:
        """What has to be extracted, the largest units first."""
        jobs = [
            (unit.count_bytes(), self._job(name, unit))
            for name, own in units.items()
            if not self._has_documents(name)
            for unit in own
        ]
        return [job for _, job in sorted(jobs, key=lambda row: -row[0])]

    def _extract(self, jobs: list[_Job]) -> None:
        if not jobs:
            return
        processes, after = min(self._workers, len(jobs)), "finished parts are kept"
        with (
            show_stage(self._console, "extract and clean", len(jobs), "units") as advance,
            worker_pool(processes, end_with_parent, workers=self._workers, after=after) as pool,
        ):
            for future in as_completed([pool.submit(extract_unit, *job) for job in jobs]):
                future.result()
                advance(1)

    def _decide(self, missing: list[str]) -> dict[str, Verdict]:
        """What becomes of the documents of all sources up to the last one that is missing."""
        names = list(self._units)[: list(self._units).index(missing[-1]) + 1]
        runs = {
            name: [run for unit in self._units[name] for run in read_runs(self._columns_path(name, unit))]
            for name in names
        }
        with ThreadPoolExecutor(self._workers) as pool:
            list(pool.map(Run.verify, (run for own in runs.values() for run in own)))
        folder = self._folder / "work" / "repeats" / self._documents_print[names[-1]]

        def follow(done: Iterable[None], count: int) -> Iterator[None]:
            with show_stage(self._console, "find repeats", count, "ranges of hashes") as advance:
                for _ in done:
                    advance(1)
                    yield

        return decide(runs, self._corpus.deduplicate, folder, self._workers, follow)

    def _deduplicate(self, missing: list[str], verdicts: dict[str, Verdict]) -> None:
        for name in missing:
            self._write_documents(name, verdicts[name])

    def _write_documents(self, name: str, verdict: Verdict) -> None:
        units = self._units[name]
        jobs = [self._job(name, unit) for unit in units]
        extracted, kept = Account(), Account()
        for job in jobs:
            extracted.add(extract_unit(*job))
        with show_stage(self._console, f"deduplicate {name}", extracted.documents, "documents") as advance:
            everything = (document for _, _, part, _, _ in jobs for document in read_documents(part))
            unique = apply_verdict(everything, verdict, self._corpus.deduplicate.paragraphs, kept)
            self._stages.start(f"documents/{name}")
            write_documents(self._documents.path(name), unique)
            advance(extracted.documents)
        if not kept.documents:
            dropped = dict(extracted.dropped + kept.dropped) or "nothing, for nothing was there to read"
            raise DataError(
                f"corpus.sources.{name}: not one document is left; dropped: {dropped}. Look at its steps and at "
                "the paths."
            )
        places = [*verdict.samples.values(), *(place for _, place in verdict.largest)]
        origins = find_origins(places, {source: self._documents.path(source) for source in self._units})
        name_survivors(kept, origins)
        kept.dropped += extracted.dropped
        kept.changed += extracted.changed
        kept.noted += extracted.noted
        kept.samples |= extracted.samples
        kept.seconds = extracted.seconds
        result = kept.to_json() | {"units": len(units), "input_bytes": sum(unit.count_bytes() for unit in units)}
        result["licences"] = sorted(extracted.licences)
        result["clusters"] = describe_clusters(verdict, origins)
        result |= self._documents.describe(name)
        self._stages.finish(f"documents/{name}", self._documents_print[name], result)

    def _describe(self, name: str) -> dict[str, Any]:
        """What shards depend on and their manifests tell; no times, so that touched inputs are the same data."""
        told, reordered = self._stages.result(f"documents/{name}"), self._fill_in_the_middle(name)
        return {
            "paths": self._corpus.sources[name].paths,
            "inputs": describe_inputs(self._units[name]),
            "licences": told["licences"],
            "documents": told["documents"],
            "documents_sha256": told["documents_sha256"],
            "fill_in_the_middle": reordered.model_dump() if reordered else None,
            "steps": [step.model_dump() for step in self._steps(name)],
            "dropped": told["dropped"],
        }

    def _write_source(self, name: str, folder: Path, provenance: dict[str, Any], own_print: str) -> None:
        told = self._stages.result(f"documents/{name}")
        check_splits(name, self._documents.read(name), self._corpus.validation_fraction)
        self._stages.start(f"shards/{name}")
        with show_stage(self._console, f"write shards of {name}", told["characters"], "characters") as advance:
            manifests = write_shards(
                self._documents.read(name),
                folder,
                self._tokenizer,
                source=name,
                licence=", ".join(told["licences"]),
                provenance=provenance | {"versions": describe_versions(self._corpus.sources[name].kind)},
                validation_fraction=self._corpus.validation_fraction,
                shard_tokens=self._corpus.shard_tokens,
                workers=self._workers,
                fill_in_the_middle=self._fill_in_the_middle(name),
                accelerator=self._corpus.tokenizer.accelerator,
                progress=lambda _, characters: advance(characters),
            )
        result: dict[str, Any] = {f"{split}_tokens": manifest.token_count for split, manifest in manifests.items()}
        result["manifests"] = {split: read_manifest(folder / split)[1] for split in manifests}
        self._stages.finish(f"shards/{name}", own_print, result)

    def _is_current(self, stage: str, own_print: str, check_output: Callable[[], object]) -> bool:
        if not self._stages.is_finished(stage, own_print):
            return False
        try:
            check_output()
        except DataError as error:
            self._console.print(f"{stage:<22} done again: {error}", markup=False)
            return False
        self._console.print(f"{stage:<22} up to date", markup=False)
        return True

    def _check_shards(self, name: str, folder: Path) -> None:
        for split, digest in self._stages.result(f"shards/{name}")["manifests"].items():
            shards = ShardedTokens(folder / split)
            if shards.manifest_sha256 != digest:
                raise DataError(f"{shards.folder}: its manifest is not what was written")
            if self._checks_bytes:
                shards.verify()

    def _has_documents(self, name: str) -> bool:
        stage = f"documents/{name}"
        if not self._stages.is_finished(stage, self._documents_print[name]):
            return False
        if not all(has_run(self._columns_path(name, unit)) for unit in self._units[name]):
            return False
        damage = self._documents.find_damage(name)
        if damage is not None:
            self._console.print(f"{stage:<22} done again: {damage}", markup=False)
            self._stages.start(stage)
        return damage is None

    def _steps(self, name: str) -> list[StepConfig]:
        return self._corpus.steps[self._corpus.sources[name].steps]

    def _fill_in_the_middle(self, name: str) -> FillInTheMiddle | None:
        source = self._corpus.sources[name]
        return source.fill_in_the_middle if isinstance(source, CodeSource | DocumentsSource) else None

    def _unit_print(self, name: str, unit: Unit) -> str:
        return fingerprint_unit(unit, self._steps(name), self._corpus.deduplicate)

    def _columns_path(self, name: str, unit: Unit) -> Path:
        return self._folder / "signatures" / name / self._unit_print(name, unit)

    def _job(self, name: str, unit: Unit) -> _Job:
        part = self._folder / "work" / name / f"{self._unit_print(name, unit)}.jsonl.zst"
        return unit, self._steps(name), part, self._columns_path(name, unit), self._corpus.deduplicate

    def _remove_stale_columns(self) -> None:
        """Remove columns of units that are in no source any more."""
        for name in _subfolders(self._folder / "signatures"):
            prints = {self._unit_print(name, unit) for unit in self._units.get(name, [])}
            for path in (self._folder / "signatures" / name).iterdir():
                if path.name.partition(".")[0] not in prints:
                    path.unlink()


def _subfolders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
