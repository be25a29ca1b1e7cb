"""Weight matrices: read from CSV or Parquet, validated against a panel, dense or sparse."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd

from engine.clock import UNIT, read_instant, show
from engine.errors import WeightsError, did_you_mean, join_first, reason_of
from engine.panel import Panel

#: Slack of the gross limit, for weights that sum to it but for rounding: 32-bit floats, or six digits in a file.
GROSS_TOLERANCE = 1e-5
#: Separators of columns other than the comma.
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}
#: Names of the column that names the coins, and of that with their weights, in files with a row for each coin.
_LONG = frozenset({"coin", "symbol", "asset", "ticker", "pair", "instrument", "market", "name"})
_VALUES = frozenset({"weight", "weights", "value", "target", "target_weight", "position"})
_CURE = "Name a whole .csv or .parquet file."
_FRACTIONS = "Weights are fractions of equity, 0.5 and -0.5, or NaN for 'hold'."
#: What numpy would make a float of.
_NO_NUMBERS = str | bytes | bool | np.bool_ | complex | np.complexfloating
UNSORTED = "Sparse weights have a row whose coins do not ascend; each column may be named once."

#: Weights of many books: (P, D, N), or sparse.
Weights: TypeAlias = "np.ndarray | SparseWeights"


def read_weights(path: str | Path) -> pd.DataFrame:
    """Read a weights file: a first column ``time`` (UTC decision instants), then one column a coin.

    Parameters
    ----------
    path : str or Path
        ``.csv`` or ``.parquet`` (there an index of instants will do for the column). Times carry their zone
        (``2024-10-01T23:00Z``); an empty cell is NaN, which means hold.

    Returns
    -------
    DataFrame, (D, coins)
        Indexed by instant, UTC, in the order of the file; ``backtest`` validates the values.

    Raises
    ------
    WeightsError
        For a file that cannot be read, has no ``time`` column first, a time without a zone or a value that is no
        number.
    """
    path = Path(path)
    where = f"Weights file {path}"
    if path.is_dir():
        raise WeightsError(f"{where} is a folder. Name the .csv or .parquet file in it.")
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            frame = pd.read_parquet(path)
            # weights.to_parquet(...) keeps the instants as an index, not as the first column.
            if isinstance(frame.index, pd.MultiIndex):
                frame = frame.reset_index()
            elif isinstance(frame.index, pd.DatetimeIndex):
                frame = frame.rename_axis("time").reset_index()
        elif path.suffix.lower() == ".csv":
            frame = _read_csv(path, where)
        else:
            raise WeightsError(f"{where} is neither .csv nor .parquet. Save it as one of them.")
    except OSError as error:
        raise WeightsError(f"{where} cannot be read: {error.strerror or error}. {_CURE}") from error
    except (ValueError, pd.errors.ParserError) as error:
        raise WeightsError(f"{where} cannot be read: {reason_of(error)}. {_CURE}") from error
    _check_layout(frame, where)
    times = _instants(frame["time"], path)
    values = frame.drop(columns="time")
    numbers = values.apply(pd.to_numeric, errors="coerce")
    numbers = numbers.mask(np.broadcast_to(values.dtypes == np.bool_, values.shape))  # true and false are no weights
    wrong = (numbers.isna() & values.notna()).to_numpy()
    if wrong.any():
        row, column = (int(position[0]) for position in np.nonzero(wrong))
        text = str(values.iloc[row, column])
        cure = "Leave the cell empty to hold, 0 to be flat."
        if re.fullmatch(r"\s*[+-]?\d*,\d+\s*", text):
            cure = f"Write a decimal point: {text.strip().replace(',', '.')}."
        elif re.fullmatch(r"\s*[+-]?\d+[.,]?\d*\s*%\s*", text):
            cure = "Weights are fractions of equity: write 0.5 for 50 %."
        raise WeightsError(
            f"{where}: {values.columns[column]} at {frame['time'].iloc[row]} is {text!r}, which is no number. {cure}"
        )
    return numbers.astype(np.float64).set_axis(times, axis=0)


def _read_csv(path: Path, where: str) -> pd.DataFrame:
    header = pd.read_csv(path, header=None, nrows=1, dtype=str, skipinitialspace=True).iloc[0]
    for mark, name in _SEPARATORS.items():
        if len(header) == 1 and mark in str(header[0]):
            raise WeightsError(
                f"{where}: its columns are separated by {name}. Write commas, and decimals with a point: "
                f"pd.read_csv(FILE, sep={mark!r}, decimal=',').to_csv(FILE, index=False)."
            )
    if pd.isna(header[0]):
        raise WeightsError(f"{where}: the first column has no name. Call it time; it holds the decision instants.")
    if header.isna().any():  # pandas calls it Unnamed: 2
        raise WeightsError(
            f"{where}: column {header.isna().argmax() + 1} has no name. Write the coin above its weights, or remove "
            "the column (a comma at the end of the lines makes one)."
        )
    _check_repeated(list(header), f"{where} has")  # pandas renames the second of two columns
    try:
        # A row of another length than the header is an error, not a reason to shift the columns.
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return pd.read_csv(path, dtype={"time": str}, index_col=False, skipinitialspace=True)
    except (pd.errors.ParserWarning, pd.errors.ParserError) as error:
        raise WeightsError(
            f"{where} cannot be read: {reason_of(error)}. Each line has one cell for each of the {len(header)} names "
            "of the first; decimals have a point, 0.5 and not 0,5."
        ) from error


def _check_layout(frame: pd.DataFrame, where: str) -> None:
    """Refuse a file that is not ``time`` and then one column a coin, or that ends with its header."""
    names = [str(name) for name in frame.columns]
    for name in names:
        if name.lower() in _LONG and pd.to_numeric(frame[name], errors="coerce").isna().all() and len(names) > 2:
            last = next((other for other in names[::-1] if other.lower() in _VALUES), names[-1])
            raise WeightsError(
                f"{where} is in long format: its column {name!r} names the coins. One column a coin is needed: "
                f"frame.pivot(index={names[0]!r}, columns={name!r}, values={last!r}).rename_axis('time')."
            )
    if not names or names[0] != "time":
        first = repr(names[0]) if names else "nothing"
        raise WeightsError(f"{where}: the first column must be 'time'; it is {first}. Then comes one column a coin.")
    if len(frame) == 0 or len(names) == 1:
        lacks = "row below its header" if len(frame) == 0 else "column of a coin"
        raise WeightsError(
            f"{where} has no {lacks}. A file begins like: time,BTC,ETH, then a line for each decision: "
            "2024-10-01T23:00Z,0.5,-0.5."
        )


def _instants(column: pd.Series, path: Path) -> pd.DatetimeIndex:
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        return pd.DatetimeIndex(column, name="time")
    if pd.api.types.is_datetime64_any_dtype(column):
        raise WeightsError(
            f"Weights file {path}: the times are naive, the first is {column.iloc[0]}. Store them as UTC."
        )
    text = column.astype("str")
    times = [None if empty else read_instant(time) for time, empty in zip(text, column.isna(), strict=True)]
    naive = text[[time.tzinfo is None if time else empty for time, empty in zip(times, column.isna(), strict=True)]]
    if len(naive):
        raise WeightsError(
            f"Weights file {path}: {len(naive)} times have no zone: {join_first(naive, 2)}. Write them as "
            "2024-10-01T23:00Z."
        )
    unread = text[[time is None for time in times]]
    if len(unread):
        raise WeightsError(f"Weights file {path}: {join_first(unread, 2)} is no time. Write 2024-10-01T23:00Z.")
    return pd.DatetimeIndex(times, name="time")


def validate_frame(weights: pd.DataFrame) -> pd.DataFrame:
    """Validate weights as far as no panel is needed: what :func:`validate_weights` refuses whatever the panel.

    Returns
    -------
    DataFrame, (D, coins)
        float64, by ascending instant, UTC; NaN = hold.

    Raises
    ------
    WeightsError
        For naive or repeated instants, no row, repeated coins, infinities and what is no number.
    """
    decisions, order = _ascending(weights.index)
    coins, values = _columns(weights)
    return pd.DataFrame(values[order], index=decisions, columns=coins)


def check_any_value(weights: pd.DataFrame | np.ndarray, book: str = "") -> None:
    """Refuse weights, (D, N), of which every cell is NaN, or that have no column; `book` says which of several."""
    if np.asarray(pd.isna(weights)).all():
        raise WeightsError(f"The weights{book} have no value: every cell is empty or NaN, which means 'hold'.")


def validate_decisions(index: pd.Index | Sequence[pd.Timestamp], panel: Panel) -> tuple[pd.DatetimeIndex, np.ndarray]:
    """Validate the instants of weights against a panel.

    Returns
    -------
    decisions : DatetimeIndex, shape (D,)
        Ascending, UTC, all in ``panel.index``.
    order : ndarray, shape (D,), int64
        Position in `index` of each decision.

    Raises
    ------
    WeightsError
        For naive, repeated or unknown instants.
    """
    decisions, order = _ascending(index)
    outside = decisions[panel.rows(decisions) < 0]
    if len(outside):
        raise WeightsError(
            f"The weights have {len(outside)} instants that the panel lacks, the first {show(outside[0])}; "
            f"the panel has every hour from {show(panel.index[0])} to {show(panel.index[-1])}. Move them to the hour "
            "or widen data.start and data.end."
        )
    return decisions, order


def _ascending(index: pd.Index | Sequence[pd.Timestamp]) -> tuple[pd.DatetimeIndex, np.ndarray]:
    """The instants of weights in ascending order, UTC, and the position in `index` of each."""
    try:
        index = pd.Index(index).infer_objects()
    except (TypeError, ValueError) as error:
        shown = repr(index) if index is None or np.isscalar(index) else type(index).__name__
        raise WeightsError(f"Decisions are {shown}; timezone-aware decision instants are needed.") from error
    if not isinstance(index, pd.DatetimeIndex):
        raise WeightsError(f"The index of the weights is {index.dtype}; timezone-aware decision instants are needed.")
    if len(index) == 0:
        raise WeightsError("The weights have no row.")
    if index.tz is None:
        raise WeightsError(
            f"The instants of the weights are naive, the first is {index[0]}. Declare them UTC: "
            "weights.tz_localize('UTC'), or 2024-10-01T23:00Z in a file."
        )
    decisions = index.tz_convert("UTC").as_unit(UNIT)
    if decisions.hasnans:
        raise WeightsError("The weights have a row without an instant.")
    if decisions.has_duplicates:
        repeated = decisions[decisions.duplicated()][0]
        raise WeightsError(f"The weights have two rows for {show(repeated)}. Keep one.")
    order = np.argsort(decisions.asi8, kind="stable")
    return pd.DatetimeIndex(decisions[order], name="time"), order


def validate_weights(weights: pd.DataFrame, panel: Panel) -> tuple[pd.DatetimeIndex, np.ndarray]:
    """Validate a weight frame against a panel and align it with the panel's coins.

    The gross is limited where weights are traded, after the overlays: :func:`check_gross`.

    Returns
    -------
    decisions : DatetimeIndex, shape (D,)
        Ascending, all in ``panel.index``.
    values : ndarray, shape (D, N)
        C-ordered float64 in the order of ``panel.coins``; NaN = hold; a coin that the frame lacks = 0.

    Raises
    ------
    WeightsError
        For naive, repeated or unknown instants, unknown or repeated coins, infinities.
    """
    if not isinstance(weights, pd.DataFrame):
        raise WeightsError(f"Weights are {type(weights).__name__}; a DataFrame (decision instants x coins) is needed.")
    decisions, order = validate_decisions(weights.index, panel)
    values = align_coins(weights, panel)[order]
    check_any_value(weights)
    return decisions, values


def validate_row(weights: Mapping[str, float], panel: Panel) -> np.ndarray:
    """Validate the weights of one decision, (1, N); a coin that is not named is 0, and all of them may be NaN."""
    return align_coins(pd.DataFrame([dict(weights)], index=panel.index[-1:], dtype=np.float64), panel)


def align_coins(weights: pd.DataFrame, panel: Panel) -> np.ndarray:
    """Values of a weight frame in the order of ``panel.coins``, (D, N), C-ordered; a coin that the frame lacks is 0.

    Raises
    ------
    WeightsError
        For unknown or repeated coins, infinities, and what is no number.
    """
    coins, given = _columns(weights)
    columns = {coin: column for column, coin in enumerate(panel.coins)}
    if unknown := [coin for coin in coins if coin not in columns]:
        raise unknown_coins(unknown, columns, "the panel", "; the panel has those that data.coins and the dates leave")
    values = np.zeros((len(weights), len(panel.coins)))
    values[:, [columns[coin] for coin in coins]] = given
    return values


def unknown_coins(unknown: Sequence[str], known: Iterable[str], where: str, why: str = "") -> WeightsError:
    """Error for coins that are named and that the panel, or the exchange, does not have."""
    return WeightsError(
        f"The weights name coins that {where} lacks: {join_first(unknown)}.{did_you_mean(unknown[0], known)} Names are "
        f"HyperLiquid's and case-sensitive, BTC and not BTC/USDC:USDC or BTC-PERP{why}."
    )


def _columns(weights: pd.DataFrame) -> tuple[list[str], np.ndarray]:
    """Names and finite values of a frame's columns."""
    coins = [str(coin) for coin in weights.columns]
    _check_repeated(coins)
    given = as_floats(weights)
    check_finite(given, coins, weights.index)
    return coins, given


def _check_repeated(coins: Sequence[str], which: str = "The weights have") -> None:
    if len(set(coins)) != len(coins):
        repeated = [coin for coin in dict.fromkeys(coins) if coins.count(coin) > 1]
        raise WeightsError(f"{which} two columns for {join_first(repeated)}. Keep one.")


def checked_books(weights: Weights, decisions: int, coins: int) -> tuple[Weights, int]:
    """Weights that must be (P, `decisions`, `coins`), as numbers, and the number of books P."""
    if isinstance(weights, SparseWeights):
        rows = len(weights.indptr) - 1
        least = 0 if weights.coins.dtype.kind == "u" or not len(weights.coins) else weights.coins.min()
        if rows % decisions or not 0 <= least <= weights.coins.max(initial=0) < coins:
            raise WeightsError(f"Sparse weights of {rows} rows do not fit {decisions} decisions and {coins} coins.")
        return weights, rows // decisions
    dense = _as_numbers(weights)
    if dense.ndim != 3 or dense.shape[1:] != (decisions, coins):
        one = " One book is weights[None]." if dense.shape == (decisions, coins) else ""
        raise WeightsError(
            f"Weights of shape {dense.shape} were given; (books, {decisions} decisions, {coins} coins) is needed.{one}"
        )
    return dense, len(dense)


def _as_numbers(weights: np.ndarray) -> np.ndarray:
    """An array that is one of numbers; objects become float64."""
    masked = isinstance(weights, np.ma.MaskedArray)
    if not isinstance(weights, np.ndarray) or masked or weights.dtype.kind not in "fiuO":
        kind = f"an array of {weights.dtype}" if isinstance(weights, np.ndarray) else type(weights).__name__
        cure = " weights.filled(numpy.nan) is one that holds what is masked." if masked else ""
        raise WeightsError(
            f"Weights are {'a masked array' if masked else kind}; an array of numbers (books, decisions, coins) is "
            f"needed.{cure}"
        )
    return as_floats(weights) if weights.dtype.kind == "O" else weights


def gross_limit(max_gross: float) -> float:
    """Gross above which weights are refused: the limit and the slack for rounding."""
    return max_gross * (1.0 + GROSS_TOLERANCE)


def check_gross(values: np.ndarray, index: pd.Index, max_gross: float, cause: str = "") -> None:
    """Refuse rows, (D, N), whose ``sum(abs(weight))`` exceeds the limit; `cause` names the overlays applied.

    Raises
    ------
    WeightsError
        Naming the row with the highest gross.
    """
    with np.errstate(over="ignore"):  # infinite is above every limit
        gross = np.nansum(np.abs(values), axis=1)
    above = np.flatnonzero(~(gross <= gross_limit(max_gross)))
    if len(above):
        worst = int(above[np.argmax(gross[above])])
        others = f", and so do {len(above)} of {len(values)} rows"
        raise gross_error(float(gross[worst]), max_gross, f"{cause} {_where(index[worst])}", others)


def gross_error(gross: float, max_gross: float, where: str, others: str = "") -> WeightsError:
    """Error for a gross above the limit, with as many digits as it takes to see the excess."""
    digits = 2 if f"{gross:.2f}" != f"{max_gross:.2f}" else 6
    percent = " They are fractions of equity; divide them by 100 if they are percent." if gross > 10.0 else ""
    return WeightsError(
        f"Gross weight {gross:.{digits}f}{where} exceeds {max_gross:.{digits}f} (account.max_gross){others}. Scale the "
        f"weights or raise the limit.{percent}"
    )


def as_floats(weights: pd.DataFrame | np.ndarray, whose: str = "The weights have a value") -> np.ndarray:
    """The values of a frame, or of an array of any shape, as float64; None and NA are NaN.

    Raises
    ------
    WeightsError
        For text, true and false, dates and complex numbers; it begins with `whose`.
    """
    frame = weights if isinstance(weights, pd.DataFrame) else pd.DataFrame(weights.reshape(-1, 1))
    for place, dtype in enumerate(frame.dtypes):
        if dtype.kind not in "fiu":
            for value in frame.iloc[:, place]:
                if dtype.kind in "mM" or isinstance(value, _NO_NUMBERS):
                    raise WeightsError(f"{whose} that is no number: {value!r}. {_FRACTIONS}")
    try:
        return frame.to_numpy(dtype=np.float64, na_value=np.nan).reshape(weights.shape)
    except (TypeError, ValueError, OverflowError) as error:
        raise WeightsError(f"{whose} that is no number: {error}. {_FRACTIONS}") from error


def check_finite(values: np.ndarray, coins: Sequence[str], index: pd.Index, book: str = "") -> None:
    """Refuse an infinite weight, (D, N), naming its coin and row, and its book where there are several."""
    if np.isinf(values).any():
        row, column = (int(position[0]) for position in np.nonzero(np.isinf(values)))
        raise WeightsError(
            f"The weight of {coins[column]}{book} {_where(index[row])} is {values[row, column]}. Weights are finite, "
            "or NaN for 'hold'."
        )


def _where(label: object) -> str:
    return f"on {show(label)}" if isinstance(label, pd.Timestamp) else f"of {label}"


@dataclass(frozen=True)
class SparseWeights:
    """Weight matrices of P books in which most weights are 0.

    Attributes
    ----------
    indptr : ndarray, (P * D + 1,) int64
        Entries of book ``p`` at decision ``d`` are ``indptr[p * D + d]`` up to the next.
    coins : ndarray, (K,) integer
        Column of each entry in ``panel.coins``, ascending within a row.
    weights : ndarray, (K,), numbers
        Signed fractions of equity; NaN = hold; a coin without an entry = 0.
    """

    indptr: np.ndarray
    coins: np.ndarray
    weights: np.ndarray

    def __post_init__(self) -> None:
        # The kernel trusts these: a wrong one would make it read memory that is not its own.
        for name, kinds, wanted in (
            ("indptr", "iu", "integers"),
            ("coins", "iu", "integers"),
            ("weights", "fiu", "numbers"),
        ):
            values = getattr(self, name)
            if not isinstance(values, np.ndarray) or values.ndim != 1 or values.dtype.kind not in kinds:
                shown = f"{values.ndim}-d {values.dtype}" if isinstance(values, np.ndarray) else type(values).__name__
                raise WeightsError(f"Sparse weights: {name} is {shown}; a 1-d array of {wanted} is needed.")
        # Signed: differences of unsigned numbers never are negative, whatever their order.
        object.__setattr__(self, "indptr", self.indptr.astype(np.int64, copy=False))
        rows = self.indptr
        ascends = len(rows) > 0 and rows[0] == 0 and bool((np.diff(rows) >= 0).all())
        if not ascends or not rows[-1] == len(self.coins) == len(self.weights):
            raise WeightsError(
                f"Sparse weights do not fit together: indptr must ascend from 0 to the number of entries; it ends at "
                f"{rows[-1] if len(rows) else None}, with {len(self.coins)} coins and {len(self.weights)} weights."
            )

    @classmethod
    def from_dense(cls, weights_pdn: np.ndarray) -> SparseWeights:
        """Keep the entries of a (P, D, N) array that are not 0."""
        weights_pdn = _as_numbers(weights_pdn)
        if weights_pdn.ndim != 3:
            raise WeightsError(
                f"Sparse weights are of an array (books, decisions, coins), not of shape {weights_pdn.shape}. One book "
                "is weights[None]."
            )
        books, rows, coins = np.nonzero(weights_pdn)
        counts = np.bincount(books * weights_pdn.shape[1] + rows, minlength=weights_pdn.shape[0] * weights_pdn.shape[1])
        return cls(np.append(0, np.cumsum(counts)), coins.astype(np.uint32), weights_pdn[books, rows, coins])

    def part(self, first: int, last: int, decisions: int) -> SparseWeights:
        """Books `first` up to `last`; the entries are not copied."""
        indptr = self.indptr[first * decisions : last * decisions + 1]
        if len(indptr) == len(self.indptr):
            return self
        entries = slice(int(indptr[0]), int(indptr[-1]))
        made = object.__new__(SparseWeights)  # a part of what was checked is not checked again
        vars(made).update(indptr=indptr - indptr[0], coins=self.coins[entries], weights=self.weights[entries])
        return made

    def to_dense(self, decisions: int, coins: int) -> np.ndarray:
        """The (P, D, N) array."""
        cells = np.repeat(np.arange(len(self.indptr) - 1), np.diff(self.indptr)) * coins + self.coins.astype(np.int64)
        if (np.diff(cells) <= 0).any():
            raise WeightsError(UNSORTED)
        dense = np.zeros((len(self.indptr) - 1) * coins)
        dense[cells] = self.weights
        return dense.reshape(-1, decisions, coins)

    def take(self, books: np.ndarray, decisions: int) -> SparseWeights:
        """Books `books`, in that order; a book may be taken more than once."""
        rows = (np.asarray(books)[:, None] * decisions + np.arange(decisions)).ravel()
        counts = np.diff(self.indptr)[rows]
        indptr = np.append(0, np.cumsum(counts))
        entries = np.repeat(self.indptr[rows] - indptr[:-1], counts) + np.arange(indptr[-1])
        return SparseWeights(indptr, self.coins[entries], self.weights[entries])

    @classmethod
    def joined(cls, parts: Sequence[SparseWeights]) -> SparseWeights:
        """The books of several, one after the other."""
        if len(parts) == 1:
            return parts[0]
        before = np.cumsum([0, *(part.indptr[-1] for part in parts)])
        indptr = [part.indptr[1:] + offset for part, offset in zip(parts, before[:-1], strict=True)]
        return cls(
            np.concatenate([[0], *indptr]),
            np.concatenate([part.coins for part in parts]),
            np.concatenate([part.weights for part in parts]),
        )
