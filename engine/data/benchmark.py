"""What a run is compared with: a coin of the panel or of the cache, or a file of returns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from engine.config import Report, RunConfig
from engine.data.panel_loader import load_whole_panel
from engine.errors import ConfigError, DataError, HlbtError, did_you_mean, reason_of
from engine.panel import Panel

NONE = "none"
_FILES = (".csv", ".parquet", ".pq")


def benchmark_price(panel: Panel, config: RunConfig) -> pd.Series | None:
    """Price of ``report.benchmark`` over the rows of a panel, never one after its last.

    Parameters
    ----------
    panel : Panel
        What the run traded; a coin that it lacks is read from the cache.
    config : RunConfig
        Of the run.

    Returns
    -------
    Series, (T,), or None
        USD, hourly, NaN where there is none, named after the benchmark; of a file of returns, what 1 USD has become.
        None for ``"none"``, and where neither panel nor cache have the default.

    Raises
    ------
    ConfigError
        For a coin that neither the panel nor the cache has, or a file that cannot be read.
    """
    wanted = config.report.benchmark
    if wanted.lower() == NONE:
        return None
    if wanted in panel.coins:
        return panel.frame("mid")[wanted]
    if wanted.lower().endswith(_FILES):
        return _of_returns(Path(wanted), panel, config.execution.hour_utc)
    try:
        # As far as the panel goes, so that it shows no sealed day that the run did not see.
        loaded = load_whole_panel(config.data.cache, panel.index[0], panel.index[-1], [wanted])
        if loaded.synthetic != panel.synthetic:
            raise DataError("The panel is not of the cache.")
    except HlbtError as error:
        if wanted == Report().benchmark:
            return None
        near = did_you_mean(wanted, panel.coins)
        raise ConfigError(f"report.benchmark = {wanted!r} is no coin of the data.{near} {error}") from error
    return loaded.frame("mid")[wanted].reindex(panel.index)


def _of_returns(path: Path, panel: Panel, hour_utc: int) -> pd.Series:
    """What 1 USD has become at each row of a panel, by a file of simple returns, each up to its time."""
    where = f"report.benchmark = {str(path)!r}"
    try:
        if path.suffix.lower() == ".csv":
            frame = pd.read_csv(path, index_col=0)
        else:
            frame = pd.read_parquet(path)
            frame = frame if isinstance(frame.index, pd.DatetimeIndex) else frame.set_index(frame.columns[0])
        if len(frame.columns) != 1:
            raise ConfigError(f"{where} has {len(frame.columns)} columns beside the time. Leave one, of returns.")
        times = pd.DatetimeIndex(pd.to_datetime(frame.index, utc=True))
        values = pd.to_numeric(frame.iloc[:, 0]).to_numpy(dtype=np.float64)
    except OSError as error:
        raise ConfigError(f"{where} cannot be read: {error.strerror or error}. Name a file that is there.") from error
    except (ValueError, TypeError, IndexError) as error:
        raise ConfigError(
            f"{where} cannot be read: {reason_of(error)}. It needs a first column of times and one of returns."
        ) from error
    if not len(values) or not np.isfinite(values).all() or (values < -1.0).any() or np.median(np.abs(values)) > 0.5:
        raise ConfigError(
            f"{where} holds no daily returns: write a loss of 1 % as -0.01, in every row, and none below -1."
        )
    if not times.is_monotonic_increasing or times.has_duplicates:
        raise ConfigError(f"{where}: times must ascend, each once. Sort the file.")
    if (times == times.normalize()).all():  # a bare date is the day that ends on it
        times += pd.Timedelta(hours=hour_utc)
    growth = pd.Series(np.cumprod(1.0 + values), times)
    # Before the first return there is nothing to compare with, but for the row at which its day begins.
    growth = pd.concat([pd.Series([1.0], [times[0] - pd.Timedelta("1D")]), growth])
    if growth.index[-1] < panel.index[0] or growth.index[0] > panel.index[-1]:
        raise ConfigError(f"{where} has no return between {panel.index[0]:%Y-%m-%d} and {panel.index[-1]:%Y-%m-%d}.")
    known = growth.reindex(panel.index, method="ffill").where(panel.index <= times[-1])
    return known.rename(path.stem)
