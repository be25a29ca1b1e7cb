"""The trial ledger: every set ever run for an idea, so that the best of them is judged by how many were tried.

One file, ``reports/.trials/ledger.jsonl``, a chain of records (:mod:`engine.hash_chain`): what was tried, and when a
holdout was sealed and opened between. Before it there was a folder of parquet files an oracle family (its dotted path),
which are read still; the first record of the chain keeps their digests.

A trial is what was tried: oracle, code, parameters, and config, with the start and coins of the data that it has; a
later end of the data, or another version of the engine, is the same trial seen again. A book of weights that no oracle
is known of is told by its weights, its config and its data. What was tried of a wrapper was tried of the oracle inside
it, too, and is of the families of both.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from engine.config import RunConfig
from engine.data.holdout import OPENED, SEALED, Holdout, holdout_in
from engine.errors import DataError, HlbtError
from engine.hash_chain import append_records, read_chain
from engine.oracles.base import Oracle
from engine.oracles.fingerprint import RENAMED_MODULES
from engine.oracles.loading import oracle_class
from engine.panel import Panel
from engine.provenance import Origin
from engine.simulation.metrics import ANNUAL

#: Dotted, so that clearing the reports does not clear the count.
FOLDER = ".trials"
LEDGER = "ledger.jsonl"
#: Kinds of records: trials, and the files of before the chain.
TRIALS, BEFORE = "trials", "before"
#: Family of weights that come from no oracle.
WEIGHTS = "weights"
#: ``module:Class`` or ``file.py:Class``; what looks like one and is none has no trials.
_PATH = re.compile(r"[^\s:]{1,150}:[^\W\d]\w{0,80}")
_COLUMNS = ("family", "key", "book", "sharpe_daily", "entry", "end")


@dataclass(frozen=True)
class TrialCount:
    """What is known of the trials of an idea.

    Attributes
    ----------
    total : int
        Distinct trials.
    sharpe_sd_daily : float
        Standard deviation, ddof=1, of their daily Sharpe ratios; NaN for fewer than two.
    broken : str
        What the ledger contradicts itself in, and the cure: the count is then a lower bound. Empty where it agrees.
    unchained : int
        Those of them that only files of before the chain have: nothing shows what happened to these.
    after_opening : int
        Those first tried after the holdout had been opened, whose result they may know.
    saw_sealed : int
        Those whose data reach into the holdout that is sealed now, whenever they were run.
    """

    total: int
    sharpe_sd_daily: float
    broken: str = ""
    unchained: int = 0
    after_opening: int = 0
    saw_sealed: int = 0

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the count must know, in sentences."""
        said = [
            (self.unchained, "lie in files of before the ledger was a chain, where a deletion does not show"),
            (self.after_opening, "were first run after the holdout had been opened: they may know its result"),
            (self.saw_sealed, "have data of the days that are sealed: to them these days are no holdout"),
        ]
        notes = [f"{count:,} of {self.total:,} trials {what}." for count, what in said if count]
        return tuple([self.broken, *notes] if self.broken else notes)


def digest_of(*parts: Any) -> int:
    """64 bits of what is given; two of a million differ but for a chance of 3e-8."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return int(finished_digests([(started_digest(text), b"")])[0])


def started_digest(text: str) -> Any:
    """The beginning of a :func:`digest_of`: parts as JSON without blanks, as far as many digests share them."""
    return hashlib.blake2b(text.encode(), digest_size=8)


def finished_digests(parts: Iterable[tuple[Any, bytes]]) -> np.ndarray:
    """:func:`digest_of`, (P,) int64, of what :func:`started_digest` began and the rest of each."""
    made = bytearray()
    for begun, rest in parts:
        digest = begun.copy()
        digest.update(rest)
        made += digest.digest()
    return np.frombuffer(bytes(made), dtype=">i8").astype(np.int64)


def trial_key(path: str, code: str, parameters: Mapping[str, Any], config: Mapping[str, Any]) -> int:
    """Identity of a trial: oracle, digest of its code, all its parameters, and :meth:`engine.RunConfig.to_dict`."""
    return digest_of(family_of(path), code, state_of(parameters), trial_config(config))


def family_of(path: str) -> str:
    """The oracle's dotted path, a renamed module by its new name; a file as seen from the current folder."""
    file, colon, name = path.rpartition(":")
    if file.endswith(".py"):
        file = Path(os.path.relpath(file)).as_posix()
    return f"{RENAMED_MODULES.get(file, file)}{colon}{name}"


def state_of(parameters: Mapping[str, Any]) -> str:
    """Parameters as text that does not depend on their order."""
    return json.dumps(parameters, sort_keys=True, default=str)


def trial_config(config: Mapping[str, Any]) -> int:
    """What of a config makes a trial another one: all but where the data lie, when they end, and what pages show."""
    data = {key: value for key, value in config["data"].items() if key not in ("cache", "end")}
    return digest_of({**{name: keys for name, keys in config.items() if name != "report"}, "data": data})


def book_key(weights: pd.DataFrame, config: Mapping[str, Any], panel: Panel) -> int:
    """Identity of a book by what it holds: weights, (D, N) by decision, :meth:`engine.RunConfig.to_dict`, data."""
    state = hashlib.sha256(repr(list(weights.columns)).encode())
    state.update(pd.DatetimeIndex(weights.index).as_unit("ms").asi8.tobytes())
    state.update((weights.to_numpy(dtype=np.float64) + 0.0).tobytes())  # -0.0 is 0
    return digest_of(state.hexdigest(), trial_config(config), panel.digest)


def record_trials(
    reports: Path,
    family: str,
    source: str,
    keys: np.ndarray,
    sharpe_daily: np.ndarray,
    panel: Panel | None = None,
    books: np.ndarray | None = None,
    known: tuple[np.ndarray, np.ndarray] | None = None,
) -> None:
    """Add the trials of one source to the ledger; those that it has already with the same figures are left out.

    Parameters
    ----------
    reports : Path
        Folder of the reports.
    family : str
        Dotted path of the oracle.
    source : str
        Name of the sweep or run.
    keys : ndarray, (P,) int64
        :func:`digest_of` of each trial.
    sharpe_daily : ndarray, (P,)
        Daily Sharpe ratio, NaN where there is none.
    panel : Panel, optional
        What they ran on: its span is recorded.
    books : ndarray, (P,) int64, optional
        :func:`book_key` of each, where it is known; a trial whose key is its book is known by it alone.
    known : (ndarray, ndarray), optional
        :func:`known_trials` of these keys, for a caller who adds them bit by bit; else the ledger is asked.
    """
    family = family_of(family)
    path = _path(reports)
    there, before = known_trials(reports, family, keys) if known is None else known
    seen = there & ((before == sharpe_daily) | np.isnan(sharpe_daily))
    if seen.all():
        return
    new = ~seen
    record = {
        "kind": TRIALS,
        "family": family,
        "source": source,
        "count": int(new.sum()),
        "keys": _packed(keys[new], np.int64),
        "sharpe_daily": _packed(sharpe_daily[new], np.float64),
        **({} if books is None else {"books": _packed(books[new], np.int64)}),
    }
    if panel is not None:
        span = (panel.index[0].isoformat(), panel.index[-1].isoformat())
        record |= {"start": span[0], "end": span[1], "data": panel.digest[:16], "synthetic": panel.synthetic}
    append_records(path, [*_adoption(reports), record])


def known_trials(reports: Path, family: str, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which trials of a family the ledger has, (P,) bool, and their daily Sharpe ratios as it has them, (P,)."""
    try:
        known = _table(reports)
    except DataError:  # damaged files of before: that is told where trials are counted
        known = pd.DataFrame(columns=list(_COLUMNS))
    # Those of these keys first: the ledger may have a hundred times as many.
    known = known[(known["family"] == family_of(family)) & known["key"].isin(keys)]
    last = known.drop_duplicates("key", keep="last")
    place = pd.Index(last["key"].to_numpy(dtype=np.int64)).get_indexer(keys)
    before = np.append(last["sharpe_daily"].to_numpy(dtype=np.float64), np.nan)[place]  # -1, not there, is the NaN
    return place >= 0, before


def count_trial(
    origin: Origin,
    config: RunConfig,
    panel: Panel,
    reports: Path,
    source: str,
    weights: pd.DataFrame | None = None,
    sharpe: float = float("nan"),
) -> None:
    """Count a trial of an origin, of the oracles inside it too, unless the ledger has it.

    Parameters
    ----------
    origin : Origin
        What was tried; weights of a file are told by the result.
    config : RunConfig
        The rules that it counts under.
    panel : Panel
        What it was tried on.
    reports : Path
        Folder of the ledger.
    source : str
        Name of the run or page.
    weights : DataFrame, (D, N), optional
        The book, which tells trials of weights apart.
    sharpe : float
        Annual; of a trial that has none yet, NaN counts and says nothing of the spread.
    """
    daily = np.array([sharpe / ANNUAL])
    book = np.array([0 if weights is None else book_key(weights, config.to_dict(), panel)])
    if origin.kind != "oracle":
        record_trials(reports, WEIGHTS, source, book, daily, panel, book)
        return
    key = np.array([trial_key(origin.path, origin.code, origin.parameters, config.to_dict())])
    inner: list[str] = []
    with suppress(HlbtError):  # a class that no path leads to has no oracle inside that a path leads to
        inner = inner_paths(oracle_class(origin.path), origin.parameters)
    for family in [origin.path, *inner]:
        record_trials(reports, family, source, key, daily, panel, book)


def record_events(reports: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Add to the ledger what happened to a holdout, records of :mod:`engine.data.holdout`."""
    append_records(_path(reports), [*_adoption(reports), *records])


def ledger_holdout(reports: Path) -> Holdout | None:
    """The holdout that the ledger knows of, whatever has become of its file in the cache.

    Raises
    ------
    DataError
        When the ledger's record of it is damaged: nothing is loaded for research past a seal that cannot be read.
    """
    chain = read_chain(_path(reports))
    try:
        return holdout_in(chain.records)
    except DataError as error:
        raise DataError(_broken(reports, chain.broken or f"{_path(reports)}: {error}")) from error


def ledger_state(reports: Path) -> dict[str, Any]:
    """How long the ledger is and how it ends, for the record of a sweep: what is removed later shows against it."""
    chain = read_chain(_path(reports))
    return {"entries": len(chain.records), "hash": chain.head}


def count_trials(reports: Path, families: Sequence[str], since: Mapping[str, Any] | None = None) -> TrialCount:
    """Distinct trials of all sources of these families, and the spread of their Sharpe ratios.

    Parameters
    ----------
    reports : Path
        Folder of the reports.
    families : sequence of str
        Dotted paths of oracles; see :func:`families_of`.
    since : mapping, optional
        :func:`ledger_state` as a sweep recorded it; a ledger that does not have that entry any more is broken.

    Returns
    -------
    TrialCount
        With `broken` where a ledger is damaged: a count that leaves trials out would flatter.
    """
    chain = read_chain(_path(reports))
    broken = chain.broken
    if since and since["entries"] and not broken:
        number = int(since["entries"])
        if len(chain.records) < number or chain.records[number - 1].get("hash") != since["hash"]:
            broken = f"{_path(reports)}: entry {number}, the last when the sweep was run, is missing or another."
    try:
        table = _table(reports)
    except DataError as error:
        broken, table = broken or str(error), _rows_of(chain.records)
    broken = broken or _changed_files(reports, chain.records)
    names = {name for family in families for name in _names_of(family_of(family))}
    own = table[table["family"].isin(names)]
    first = own.drop_duplicates("key", keep="first")
    last = own.drop_duplicates("key", keep="last")
    books = set(own.loc[own["key"] != own["book"], "book"])
    alone = (first["book"] != 0) & (first["key"] == first["book"]) & first["book"].isin(books)
    first, last = first[~alone], last[~last["key"].isin(first.loc[alone, "key"])]
    sharpe = last["sharpe_daily"].to_numpy(dtype=np.float64)
    sharpe = sharpe[np.isfinite(sharpe)]
    spread = float(np.std(sharpe, ddof=1)) if len(sharpe) > 1 else float("nan")
    try:
        late, saw = _marks(own, chain.records)
    except DataError as error:
        broken, late, saw = broken or f"{_path(reports)}: {error}", set(), set()
    counted = first["key"]
    return TrialCount(
        len(first),
        spread,
        _broken(reports, broken) if broken else "",
        int((first["entry"] < 0).sum()),
        int(counted.isin(late).sum()),
        int(counted.isin(saw).sum()),
    )


def _broken(reports: Path, how: str) -> str:
    return (
        f"The ledger of trials is broken, {how.rstrip('.')}. Restore {reports / FOLDER} from a copy, or move it away "
        "and run the sweeps again."
    )


def trials_that_saw(reports: Path, start: pd.Timestamp, synthetic: bool) -> tuple[int, int]:
    """How many trials of the ledger have data from `start` on, and of how many no span was recorded."""
    rows = _of_kind(_table(reports), read_chain(_path(reports)).records, synthetic)
    ends = _instants(rows["end"])
    return int(rows.loc[ends >= start, "key"].nunique()), int(rows.loc[ends.isna(), "key"].nunique())


def _marks(own: pd.DataFrame, records: Sequence[Mapping[str, Any]]) -> tuple[set[int], set[int]]:
    """Keys of trials first run after the opening of the holdout; of those with data from its start on."""
    holdout = holdout_in(records)
    if holdout is None:
        return set(), set()
    rows = _of_kind(own, records, holdout.synthetic)
    sealed = max(record["entry"] for record in records if record.get("kind") == SEALED)
    openings = [record["entry"] for record in records if record.get("kind") == OPENED and record["entry"] > sealed]
    opened = min(openings, default=np.inf)
    first = rows.drop_duplicates("key", keep="first")
    late = set(first.loc[first["entry"] > opened, "key"])
    return late, set(rows.loc[_instants(rows["end"]) >= holdout.start, "key"])


def _of_kind(rows: pd.DataFrame, records: Iterable[Mapping[str, Any]], synthetic: bool) -> pd.DataFrame:
    """Trials on real data, or on made-up ones; those of which it is not known are of both."""
    others = {record["entry"] for record in records if record.get("synthetic", synthetic) != synthetic}
    return rows[~rows["entry"].isin(others)]


def _instants(texts: pd.Series) -> pd.Series:
    return pd.to_datetime(texts, utc=True, errors="coerce")  # an edited record, which the chain tells of


def _packed(values: np.ndarray, kind: type) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype=kind).tobytes()).decode()


def _unpacked(text: Any, kind: type) -> np.ndarray:
    try:
        return np.frombuffer(base64.b64decode(text), dtype=kind)
    except (ValueError, TypeError):  # an edited record, which the chain tells of
        return np.empty(0, dtype=kind)


def _rows_of(records: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """The trials of the chain, in the order of their records."""
    parts: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
    counts = []
    for record in records:
        if record.get("kind") != TRIALS:
            continue
        keys, sharpe = _unpacked(record.get("keys"), np.int64), _unpacked(record.get("sharpe_daily"), np.float64)
        books = _unpacked(record.get("books", ""), np.int64)
        counts.append(count := min(len(keys), len(sharpe)))
        own = books[:count] if len(books) >= count else np.zeros(count, dtype=np.int64)
        of_record = (str(record.get("family")), keys[:count], own, sharpe[:count], record["entry"], record.get("end"))
        for part, value in zip(parts.values(), of_record, strict=True):
            part.append(value)
    if not counts:
        return pd.DataFrame(columns=list(_COLUMNS))
    columns = {name: np.concatenate(parts[name]) for name in ("key", "book", "sharpe_daily")}
    columns["entry"] = np.repeat(np.array(parts["entry"], dtype=np.int64), counts)
    for name in ("family", "end"):
        columns[name] = np.repeat(np.array(parts[name], dtype=object), counts)
    return pd.DataFrame({name: pd.Series(columns[name], dtype=columns[name].dtype) for name in _COLUMNS}, copy=False)


def _table(reports: Path) -> pd.DataFrame:
    """Every trial: those of before the chain, then those of the chain.

    Raises
    ------
    DataError
        When a file of before the chain is damaged.
    """
    parts = []
    for path in _files_before(reports):
        try:
            part = pd.read_parquet(path, columns=["key", "sharpe_daily"])
            family = (path.parent / "family.txt").read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise DataError(f"its file {path} is damaged: {str(error).splitlines()[0]}") from error
        parts.append(part.assign(family=family, book=np.int64(0), entry=-1, end=None)[list(_COLUMNS)])
    chained = _rows_of(read_chain(_path(reports)).records)
    return pd.concat([*parts, chained], ignore_index=True) if parts else chained


def _files_before(reports: Path) -> list[Path]:
    return sorted((reports / FOLDER).glob("*/*.parquet"))


def _adoption(reports: Path) -> list[dict[str, Any]]:
    """The first record of a ledger that continues files of before the chain: their digests."""
    files = _files_before(reports)
    if not files or _path(reports).exists():
        return []
    return [{"kind": BEFORE, "files": {path.relative_to(reports).as_posix(): _sha256(path) for path in files}}]


def _changed_files(reports: Path, records: Sequence[Mapping[str, Any]]) -> str:
    """What has become of the files of before the chain, which its first record names; empty where they are the same."""
    for record in records:
        if record.get("kind") == BEFORE:
            for name, digest in record["files"].items():
                path = reports / name
                if not path.is_file() or _sha256(path) != digest:
                    what = "was changed" if path.is_file() else "is missing"
                    return f"its file {path}, which entry {record['entry']} names, {what}."
    return ""


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def families_of(record: Mapping[str, Any]) -> list[str]:
    """Families by whose trials a sweep is judged: its oracles', and those of the oracles inside them.

    A wrapper is no new idea: what was tried of the oracle inside was tried of this one.
    """
    named = paths_in([*record["fixed"].values(), *record["grid"].values()])
    return list(dict.fromkeys([*(oracle["path"] for oracle in record["oracles"]), *record.get("inner", ()), *named]))


def paths_in(values: Iterable[Any]) -> list[str]:
    """Texts among the values, and in the lists and tables among them, that read like the path of an oracle."""
    paths: list[str] = []
    for value in values:
        if isinstance(value, Mapping):
            paths += paths_in(value.values())
        elif isinstance(value, list | tuple):
            paths += paths_in(value)
        elif isinstance(value, str) and _PATH.fullmatch(value):
            paths.append(value)
    return paths


def inner_paths(kind: type[Oracle], parameters: Mapping[str, Any]) -> list[str]:
    """Paths of the oracles inside one, of its parameters as ``bound_parameters`` has them."""
    return paths_in(value for name, value in parameters.items() if name.partition(".")[0] in kind.oracle_parameters)


def families_below(reports: Path) -> list[str]:
    """Every oracle family with a trial below `reports`, ascending."""
    return sorted(set(_table(reports)["family"]))


def _names_of(family: str) -> list[str]:
    """A family and what it was called before its module was renamed: its older trials lie in a folder of that name."""
    module, colon, name = family.rpartition(":")
    return [family, *(f"{old}{colon}{name}" for old, new in RENAMED_MODULES.items() if new == module)]


def _path(reports: Path) -> Path:
    return reports / FOLDER / LEDGER
