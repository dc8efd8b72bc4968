"""The account of a preparation as one page for people: `report.html`, without scripts and with nothing from elsewhere.

In: what stages told of each source (`report.json`), and the shards. Out: sizes, lengths, languages, hosts, why
documents went and what they looked like, tokens. Bars are spans whose width is a share of the largest.
"""

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llmtrain.shards.reader import ShardedTokens, open_data
from llmtrain.tokenizer.sentencepiece_tokenizer import Tokenizer

_MAX_ROWS = 15
_SAMPLED_TOKENS = 5_000_000
_SHOWN_DOCUMENTS = 3
_SHOWN_CHARACTERS = 600
_SHOWN = str.maketrans({"\u2581": "\u00b7", "\n": "\u21b5", "\t": "\u21e5"})  # white space as something to see
_COLOURS = ("#2b6cb0", "#dd6b20", "#2f855a", "#805ad5", "#b83280", "#718096", "#975a16", "#0987a0")

_STYLE = """
:root{color-scheme:light dark;--line:#8884;--soft:#8882;--bar:#2b6cb0}
body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}
h1{margin-bottom:0}h2{margin-top:2.5rem;border-bottom:1px solid var(--line)}h3{margin:1.6rem 0 .4rem;font-size:1rem}
table{border-collapse:collapse}td,th{padding:.15rem .8rem .15rem 0;text-align:right;white-space:nowrap}
th{font-weight:600;border-bottom:1px solid var(--line)}td:first-child,th:first-child{text-align:left}
.stack{display:flex;height:1.4rem;border-radius:4px;overflow:hidden;margin:.4rem 0}.stack span{display:block}
.bars{display:grid;grid-template-columns:max-content 1fr max-content;gap:.15rem .8rem;align-items:center}
.bars .bar{background:var(--bar);height:.75rem;border-radius:2px;min-width:1px}
.bars .n{text-align:right;font-variant-numeric:tabular-nums}
.columns{display:flex;align-items:flex-end;height:7rem;gap:3px;border-bottom:1px solid var(--line)}
.columns div{flex:1;background:var(--bar);min-height:1px;border-radius:2px 2px 0 0}
.labels{display:flex;gap:3px;font-size:.7rem}.labels div{flex:1;text-align:center;width:0}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(18rem,1fr));gap:0 2.5rem}
.note{color:#777}details{margin:.2rem 0}pre{white-space:pre-wrap;background:var(--soft);padding:.6rem;border-radius:4px}
summary{cursor:pointer}.dot{display:inline-block;width:.8rem;height:.8rem;border-radius:2px;margin-right:.4rem}
.piece{font-family:ui-monospace,monospace;background:var(--soft);padding:0 .3rem;border-radius:3px;white-space:pre}
"""


@dataclass(frozen=True)
class SplitNumbers:
    """What the tokens of one split of a source tell."""

    documents: int
    tokens: int
    length_bins: Mapping[int, int]
    """Documents by length: key k counts those of 2^k to 2^(k+1) - 1 tokens."""
    frequent_pieces: Sequence[tuple[str, float]]
    """The most frequent pieces with their share of the tokens."""
    unused_fraction: float
    """Share of the vocabulary that does not occur."""


def render_page(name: str, sources: Mapping[str, Mapping[str, Any]], folder: Path) -> str:
    """The page.

    Args:
        name: of the data.
        sources: by source what its stages told.
        folder: `data.folder`, with tokenizer and shards.

    Raises:
        DataError: shards are missing or damaged.
    """
    tokenizer = Tokenizer.load(folder / "tokenizer")
    shards = open_data(folder, "train", list(sources))
    colours = {source: _COLOURS[i % len(_COLOURS)] for i, source in enumerate(sources)}
    parts = [_render_overview(name, sources, colours)]
    for source, row in sources.items():
        numbers = _measure_split(shards[source], tokenizer)
        documents = list(_read_documents(shards[source], tokenizer))
        parts.append(_render_source(source, row, numbers, documents, colours[source]))
    title = html.escape(f"Data of {name}")
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style>\n'
        f"<body>{''.join(parts)}</body></html>\n"
    )


def _render_overview(name: str, sources: Mapping[str, Mapping[str, Any]], colours: Mapping[str, str]) -> str:
    total = sum(row["train_tokens"] for row in sources.values()) or 1
    stack = "".join(
        f'<span style="width:{100 * row["train_tokens"] / total:.2f}%;background:{colours[source]}" '
        f'title="{html.escape(source)}"></span>'
        for source, row in sources.items()
    )
    head = ("source", "licence", "input MB", "documents", "characters", "train tokens", "validation", "chars/token")
    rows = [
        (
            f'<span class="dot" style="background:{colours[source]}"></span>{html.escape(source)}',
            html.escape(_shorten(", ".join(row["licences"]), 30)),
            f"{row['input_bytes'] / 1e6:,.1f}",
            f"{row['documents']:,}",
            f"{row['characters']:,}",
            f"{row['train_tokens']:,}",
            f"{row['validation_tokens']:,}",
            f"{row['characters_per_token']:.2f}",
        )
        for source, row in sources.items()
    ]
    documents = sum(row["documents"] for row in sources.values())
    return (
        f"<h1>Data of {html.escape(name)}</h1><p>{documents:,} documents, {total:,} training tokens from "
        f'{len(sources)} sources.</p><div class="stack">{stack}</div>{_render_table(head, rows)}'
    )


def _render_source(
    source: str,
    row: Mapping[str, Any],
    numbers: SplitNumbers,
    documents: Iterable[str],
    colour: str,
) -> str:
    dropped, kept = sum(row["dropped"].values()), row["documents"]
    parts = [
        f'<section style="--bar:{colour}"><h2>{html.escape(source)}</h2>',
        f"<p>{kept:,} documents stay, {dropped:,} went ({_share(dropped, kept + dropped)}). {row['units']:,} units, "
        f"{row['seconds']:.1f} s of processor time to read and clean, "
        f"{row['input_bytes'] / 1e6 / max(row['seconds'], 1e-9):.1f} MB of input per second.</p>",
        '<div class="grid">',
        _render_histogram("Characters per document", {int(k): v for k, v in row["lengths"].items()}),
        _render_histogram("Tokens per document", numbers.length_bins),
        _render_bars("Languages", row["languages"]),
        _render_bars("Hosts", row["domains"]),
        "</div>",
        _render_reasons("Why documents went", row["dropped"], row["samples"]),
        _render_clusters(row.get("clusters", {})),
        _render_reasons("What steps changed", row["changed"], row["samples"]),
        _render_reasons("What steps noted and left", row.get("noted", {}), row["samples"]),
        _render_pieces(numbers),
        "<h3>Documents</h3>",
    ]
    parts += [_render_details(_shorten(" ".join(text.split()), 90), text) for text in documents]
    return "".join(parts) + "</section>"


def _render_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    cells = "".join(f"<th>{name}</th>" for name in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{cells}</tr>{body}</table>"


def _render_bars(title: str, counts: Mapping[str, int]) -> str:
    if not counts:
        return ""
    rows = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    largest, rest = rows[0][1], len(rows) - _MAX_ROWS
    bars = "".join(
        f'<span>{html.escape(name)}</span><span class="bar" style="width:{100 * count / largest:.1f}%"></span>'
        f'<span class="n">{count:,}</span>'
        for name, count in rows[:_MAX_ROWS]
    )
    more = f'<p class="note">and {rest:,} more</p>' if rest > 0 else ""
    return f'<div><h3>{title}</h3><div class="bars">{bars}</div>{more}</div>'


def _render_histogram(title: str, bins: Mapping[int, int]) -> str:
    if not bins:
        return ""
    keys = range(min(bins), max(bins) + 1)
    largest = max(bins.values())
    columns = "".join(
        f'<div style="height:{100 * bins.get(key, 0) / largest:.1f}%" title="{1 << key:,} to {(2 << key) - 1:,}: '
        f'{bins.get(key, 0):,}"></div>'
        for key in keys
    )
    every = 1 + len(keys) // 9
    labels = "".join(f"<div>{_short(1 << key) if i % every == 0 else ''}</div>" for i, key in enumerate(keys))
    return f'<div><h3>{title}</h3><div class="columns">{columns}</div><div class="labels">{labels}</div></div>'


def _render_reasons(title: str, counts: Mapping[str, int], samples: Mapping[str, Sequence[str]]) -> str:
    if not counts:
        return ""
    details = "".join(
        _render_details(reason, "\n".join(samples[reason])) for reason in sorted(counts) if samples.get(reason)
    )
    return f"{_render_bars(title, counts)}{details}"


def _render_clusters(clusters: Mapping[str, Any]) -> str:
    """How many documents of this source are repeats of one that stays."""
    if not clusters.get("copies"):
        return ""
    rows = [
        (html.escape(_shorten_middle(row["origin"], 80)), html.escape(row["source"]), f"{row['dropped']:,}")
        for row in clusters["largest"]
    ]
    head = ("stays", "in source", "repeats that went")
    histogram = _render_histogram("Repeats per document", {int(k): v for k, v in clusters["copies"].items()})
    return f'<div class="grid">{histogram}</div><h3>Most repeated documents</h3>{_render_table(head, rows)}'


def _render_details(summary: str, text: str) -> str:
    return f"<details><summary>{html.escape(summary)}</summary><pre>{html.escape(text)}</pre></details>"


def _render_pieces(numbers: SplitNumbers) -> str:
    pieces = " ".join(
        f'<span class="piece" title="{share:.2%} of the tokens">{html.escape(piece.translate(_SHOWN))}</span>'
        for piece, share in numbers.frequent_pieces
    )
    return (
        f"<h3>Most frequent pieces</h3><p>{pieces}</p>"
        f'<p class="note">{numbers.unused_fraction:.1%} of the vocabulary does not occur in this source.</p>'
    )


def _measure_split(shards: ShardedTokens, tokenizer: Tokenizer) -> SplitNumbers:
    lengths: dict[int, int] = {}
    for shard in range(len(shards.manifest.shards)):
        sizes = np.diff(shards.document_ends(shard), prepend=np.uint64(0))
        bins, counts = np.unique(np.log2(np.maximum(sizes, 1)).astype(np.int64), return_counts=True)
        for key, count in zip(bins.tolist(), counts.tolist(), strict=True):
            lengths[key] = lengths.get(key, 0) + count
    tokens = shards.read(0, min(shards.token_count, _SAMPLED_TOKENS))
    counts = np.bincount(tokens.astype(np.int64), minlength=tokenizer.vocab_size)
    order = [i for i in np.argsort(-counts, kind="stable").tolist() if not tokenizer.processor.is_control(i)]
    return SplitNumbers(
        documents=shards.document_count,
        tokens=shards.token_count,
        length_bins=lengths,
        frequent_pieces=[(tokenizer.processor.id_to_piece(i), counts[i] / len(tokens)) for i in order[:40]],
        unused_fraction=float((counts == 0).mean()),
    )


def _read_documents(shards: ShardedTokens, tokenizer: Tokenizer) -> Iterable[str]:
    """The beginnings of some documents, evenly over the first shard."""
    ends = shards.document_ends(0)
    for number in np.linspace(0, len(ends) - 1, num=min(_SHOWN_DOCUMENTS, len(ends)), dtype=np.int64).tolist():
        start = int(ends[number - 1]) if number else 0
        ids = shards.read(start, min(int(ends[number]) - start, _SHOWN_CHARACTERS))
        yield tokenizer.decode([int(i) for i in ids if not tokenizer.processor.is_control(int(i))])[:_SHOWN_CHARACTERS]


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}\u2026"


def _shorten_middle(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length // 3]}\u2026{text[-(2 * length // 3) :]}"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "0 %"


def _short(number: int) -> str:
    exponent = int(math.log2(number)) // 10 if number >= 1024 else 0
    return f"{number >> 10 * exponent}{('', 'k', 'M', 'G')[exponent]}"
