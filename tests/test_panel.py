"""What a panel is made of, what it refuses (what, where, value, cure), and its digest."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from engine import Coin, Panel, RunConfig, backtest, decisions_of
from engine.errors import ConfigError, DataError
from helpers.panels import random_panel

INDEX = pd.date_range("2024-10-01", periods=60, freq="h", tz="UTC")
MID = pd.DataFrame({"BTC": 60_000.0, "ETH": 3_000.0}, index=INDEX)
NAN = float("nan")


def without_an_instant() -> pd.DatetimeIndex:
    return INDEX.where(INDEX != INDEX[3])


def at(row: int, coin: str, value: object) -> pd.DataFrame:
    changed = MID.astype(object) if isinstance(value, str) else MID.copy()
    changed.loc[INDEX[row], coin] = value
    return changed


# Frames ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"funding": MID}, "needs mid="),
        ({"mid": MID, "fundng": MID}, "Unknown panel field 'fundng'. Did you mean 'funding'? Fields: mid, bid"),
        ({"mid": MID["BTC"]}, "Panel field 'mid' is Series; a DataFrame"),
        ({"mid": MID, "tradable": MID.to_numpy() > 0}, "Panel field 'tradable' is ndarray; a DataFrame"),
        ({"mid": MID, "tradable": (MID > 0).astype(int)}, "tradable must be True or False; its columns are int64"),
        ({"mid": MID.tz_localize(None)}, "naive timestamps from 2024-10-01 00:00:00 (add tz_localize('UTC'))"),
        ({"mid": MID.iloc[::-1]}, "a step from 2024-10-03 11:00 UTC to 2024-10-03 10:00 UTC"),
        ({"mid": MID.drop(INDEX[5])}, "a step from 2024-10-01 04:00 UTC to 2024-10-01 06:00 UTC"),
        ({"mid": MID.iloc[:0]}, "an empty index"),
        ({"mid": MID.reset_index(drop=True)}, "RangeIndex of int64"),
        ({"mid": MID.shift(freq="30min")}, "instants off the hour, from 2024-10-01T00:30:00+00:00"),
        ({"mid": MID.set_axis(without_an_instant())}, "got rows without an instant"),
        ({"mid": MID, "funding": MID.set_axis(without_an_instant())}, "index of funding must be timezone-aware"),
        ({"mid": MID, "funding": MID.tz_localize(None)}, "The index of funding must be timezone-aware instants"),
        ({"mid": MID[[]]}, "no coin at all"),
        ({"mid": MID.set_axis(["A", "A"], axis=1)}, "repeated instants or coins"),
        ({"mid": MID, "funding": pd.concat([MID, MID])}, "The frame of funding has repeated instants or coins"),
        ({"mid": MID, "funding": MID.rename(columns={"ETH": "eth"})}, "mid lacks: eth. Did you mean 'ETH'?"),
        ({"mid": MID.iloc[:-2], "funding": MID}, "the first 2024-10-03 10:00 UTC (2 in all)"),
        ({"mid": at(7, "ETH", "n/a")}, "Panel field 'mid' has a value that is not a number"),
        ({"mid": at(7, "ETH", 0.0)}, "'mid' of ETH at 2024-10-01 07:00 UTC is 0.0; it must be a positive price or NaN"),
        ({"mid": at(7, "ETH", np.inf)}, "'mid' of ETH at 2024-10-01 07:00 UTC is inf"),
        ({"mid": MID, "ask": at(0, "BTC", -1.0)}, "'ask' of BTC at 2024-10-01 00:00 UTC is -1.0"),
        (
            {"mid": MID, "funding": at(9, "BTC", -np.inf)},
            "BTC at 2024-10-01 09:00 UTC is -inf; it must be finite or NaN",
        ),
        ({"mid": MID, "table": {"BTC": 5}}, "table holds 'BTC', which is not a Coin. Write table=[Coin('BTC'"),
        ({"mid": MID, "table": [Coin("BTC"), Coin("BTC", sz_decimals=5)]}, "two entries for BTC"),
        ({"mid": MID, "table": [Coin("btc", sz_decimals=5)]}, "mid lacks: btc. Did you mean 'BTC'? Leave them out"),
    ],
)
def test_frames_that_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        Panel.from_frames(**given)


def test_what_a_frame_lacks_is_not_observed() -> None:
    """Fewer rows, fewer coins and another order are fine: what is not there is NaN, or not tradable."""
    tradable = pd.DataFrame({"ETH": True, "BTC": False}, index=INDEX[10:])
    panel = Panel.from_frames(mid=MID, funding=MID[["ETH"]].iloc[5:8] / 1e8, tradable=tradable)
    funding = panel.values("funding")
    assert np.isnan(funding[:, 0]).all() and np.flatnonzero(~np.isnan(funding[:, 1])).tolist() == [5, 6, 7]
    assert not panel.tradable[:, 0].any() and np.flatnonzero(panel.tradable[:, 1]).tolist() == list(range(10, 60))


def test_the_index_is_utc_whatever_zone_it_is_given_in() -> None:
    tokyo = Panel.from_frames(mid=MID.tz_convert("Asia/Tokyo"))
    assert tokyo.index.equals(INDEX) and tokyo.digest == Panel.from_frames(mid=MID).digest
    # 23:00 in Tokyo is 14:00 UTC: a panel whose index kept its zone would decide there
    made = Panel(INDEX.tz_convert("Asia/Tokyo"), tokyo.coins, tokyo.fields, tokyo.tradable, tokyo.table)
    assert decisions_of(made, RunConfig()).tolist() == INDEX[INDEX.hour == 23].tolist()
    assert made.digest == tokyo.digest


# The coin table -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sz_decimals": -1}, "sz_decimals = -1 is not accepted; it must be a whole number from 0 to 18"),
        ({"sz_decimals": 2.5}, "sz_decimals = 2.5"),
        ({"sz_decimals": "5"}, "sz_decimals = '5'"),
        ({"sz_decimals": True}, "sz_decimals = True"),
        ({"max_leverage": 0}, "max_leverage = 0 is not accepted; it must be a positive number or None"),
        ({"max_leverage": -3.0}, "max_leverage = -3.0"),
        ({"max_leverage": NAN}, "max_leverage = nan"),
        ({"max_leverage": np.inf}, "max_leverage = inf"),
        ({"margin_tiers": ((100.0, 10.0),)}, "the USD ascend from 0"),
        ({"margin_tiers": ((0.0, 10.0), (0.0, 5.0))}, "the USD ascend from 0"),
        ({"margin_tiers": ((5e3, 10.0), (0.0, 20.0))}, "the USD ascend from 0"),
        ({"margin_tiers": ((0.0, 10.0), (5e3, 20.0))}, "the leverage falls"),
        ({"margin_tiers": ((0.0, 10.0), (5e3, 0.0))}, "the leverage falls"),
        ({"margin_tiers": ((0.0, NAN),)}, "the leverage falls"),
        ({"margin_tiers": (0.0, 10.0)}, "pairs of USD and leverage"),
        ({"listed": "2024-10-01"}, "listed = '2024-10-01' is not accepted; it must be a timezone-aware Timestamp"),
        ({"delisted": pd.Timestamp("2024-10-01")}, "delisted = Timestamp('2024-10-01 00:00:00') is not accepted"),
    ],
)
def test_coins_that_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)) as error:
        Coin("BTC", **values)
    assert str(error.value).startswith("Coin BTC: ")


def test_margin_tiers_may_be_an_array() -> None:
    tiers = ((0.0, 40.0), (1e6, 20.0))
    assert Coin("BTC", margin_tiers=np.array(tiers)) == Coin("BTC", margin_tiers=tiers)  # type: ignore[arg-type]


def test_a_coin_without_a_name_is_refused() -> None:
    with pytest.raises(DataError, match="a coin's name is a text"):
        Coin(3)  # type: ignore[arg-type]


def test_equal_coins_have_equal_digests() -> None:
    """However they are written: the digest is over their text."""
    written = Coin("BTC", INDEX[0].tz_convert("Asia/Tokyo"), None, np.int64(5), 40, [[0, 40], [1e6, np.float32(20)]])  # type: ignore[arg-type]
    plain = Coin("BTC", INDEX[0], None, 5, 40.0, ((0.0, 40.0), (1e6, 20.0)))
    assert written == plain and repr(written) == repr(plain)
    assert Panel.from_frames(mid=MID, table=[written]).digest == Panel.from_frames(mid=MID, table=[plain]).digest


# Arrays ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda panel: {"coins": panel.coins[:1], "table": panel.table[:1]}, "'mid' has shape (60, 2); (60, 1)"),
        (lambda panel: {"coins": ("BTC", "BTC")}, "must be unique and at least one; repeated: BTC"),
        (lambda panel: {"table": panel.table[:1]}, "one Coin for each of its 2 coins, in their order; it has BTC"),
        (lambda panel: {"table": panel.table[::-1]}, "in their order; it has ETH, BTC"),
        (lambda panel: {"table": ()}, "it has none"),
        (lambda panel: {"tradable": panel.tradable.astype(int)}, "tradable must be True or False; it is int64"),
        (lambda panel: {"tradable": panel.tradable[:-1]}, "'tradable' has shape (59, 2)"),
        (lambda panel: {"fields": {}}, "needs the field 'mid'"),
        (lambda panel: {"fields": {**panel.fields, "mids": panel.fields["mid"]}}, "Did you mean 'mid'?"),
        (lambda panel: {"index": panel.index[::-1]}, "consecutive UTC hours; got a step from 2024-10-03 11:00"),
    ],
)
def test_arrays_that_do_not_agree(change: Callable[[Panel], dict[str, Any]], message: str) -> None:
    """The kernel reads a coin's lot at its column: a table of another length would be another memory."""
    panel = Panel.from_frames(mid=MID)
    with pytest.raises(DataError, match=re.escape(message)):
        replace(panel, **change(panel))


def test_arrays_are_read_only_and_frames_are_views() -> None:
    panel = random_panel(3, 50, 4)
    for name in panel.fields:
        assert panel.values(name).dtype == np.float64 and not panel.values(name).flags.writeable
        assert np.shares_memory(panel.frame(name).to_numpy(), panel.values(name))
    assert panel.frame("tradable").dtypes.eq(np.bool_).all() and not panel.tradable.flags.writeable
    with pytest.raises(DataError, match=r"no field 'mids'. Did you mean 'mid'\? It has: mid, bid"):
        panel.frame("mids")


def test_the_callers_array_stays_writable_and_a_price_less_cell_is_never_tradable() -> None:
    mid = MID.to_numpy().copy()
    mid[4, 1] = NAN
    panel = Panel(INDEX, ("BTC", "ETH"), {"mid": mid}, np.ones(mid.shape, dtype=bool), (Coin("BTC"), Coin("ETH")))
    assert mid.flags.writeable
    assert np.argwhere(~panel.tradable).tolist() == [[4, 1]]


def test_everything_a_run_reads_is_in_the_digest() -> None:
    panel = random_panel(3, 50, 4)
    funding = panel.values("funding").copy()
    funding[7, 2] = 1.5e-5
    tradable = panel.tradable.copy()
    tradable[7, 2] ^= True
    table = (replace(panel.table[0], max_leverage=7.0), *panel.table[1:])
    others = [
        replace(panel, fields={**panel.fields, "funding": funding}),
        replace(panel, fields={name: values for name, values in panel.fields.items() if name != "mark"}),
        replace(panel, tradable=tradable),
        replace(panel, table=table),
        replace(panel, synthetic=True),
        replace(panel, index=panel.index + pd.Timedelta(days=1)),
        panel.point_in_time(),
        panel.until(panel.index[-2]),
    ]
    digests = [panel.digest, *(other.digest for other in others)]
    assert len(set(digests)) == len(digests)
    assert replace(panel).digest == panel.digest


# As known -------------------------------------------------------------------------------------------------------------


def test_until_keeps_the_row_itself_and_forgets_what_came_later() -> None:
    table = [Coin("BTC", listed=INDEX[20], delisted=INDEX[30]), Coin("ETH", listed=INDEX[31])]
    panel = Panel.from_frames(mid=MID, table=table)
    cut = panel.until(INDEX[30])
    assert cut.index[-1] == INDEX[30] and np.shares_memory(cut.values("mid"), panel.values("mid"))
    # its last price is of this row: that none came after is not known yet
    assert cut.table == (Coin("BTC", listed=INDEX[20]), Coin("ETH"))
    assert panel.until(INDEX[31]).table == tuple(table)
    with pytest.raises(DataError, match=r"starts at 2024-10-01 00:00 UTC, after 2024-09-30 23:00 UTC"):
        panel.until(INDEX[0] - pd.Timedelta(hours=1))
    with pytest.raises(ConfigError, match="has a time of day but no zone"):
        panel.until(pd.Timestamp("2024-10-02T05:00"))


def test_funding_at_a_point_in_time_is_that_of_the_hour_before() -> None:
    panel = random_panel(3, 50, 4)
    known = panel.point_in_time()
    assert np.isnan(known.values("funding")[0]).all()
    np.testing.assert_array_equal(known.values("funding")[1:], panel.values("funding")[:-1])
    np.testing.assert_array_equal(known.values("mid"), panel.values("mid"))
    assert known.point_in_time() is known and known.known() is known
    assert not Panel.from_frames(mid=MID).point_in_time().fields.keys() - {"mid"}


def test_a_panel_and_a_result_are_shown_in_a_line() -> None:
    made = Panel.from_frames(mid=pd.DataFrame({"BTC": [100.0, 110.0]}, index=INDEX[:2]), synthetic=True)
    span = f"{INDEX[0]:%Y-%m-%d %H:%M} UTC to {INDEX[1]:%Y-%m-%d %H:%M} UTC"
    assert repr(made) == f"Panel(2 hours x 1 coins, {span}, mid, SYNTHETIC)"
    assert repr(made.point_in_time()).endswith("mid, SYNTHETIC, as known)")
    free = RunConfig.from_dict({"costs": {"taker_bps": 0.0, "half_spread_bps": 0.0}, "execution": {"lots": False}})
    result = backtest(made, pd.DataFrame({"BTC": [0.5]}, index=made.index[:1]), free)
    assert repr(result) == f"Result(equity 10,000.00 -> 10,500.00 USD, 1 trades, {made!r})"


def test_lots_and_leverage_have_a_date() -> None:
    """An oracle sees them on data that reach it; the ledger always, and a digest has only what may be seen."""
    coin = Coin("BTC", sz_decimals=5, max_leverage=40.0, margin_tiers=((0.0, 40.0), (1e6, 20.0)))
    table = [replace(coin, terms_from=INDEX[20]), replace(coin, name="ETH")]
    panel = Panel.from_frames(mid=MID, table=table)
    unknown = (Coin("BTC"), Coin("ETH"))
    assert panel.as_of(INDEX[19]).table == unknown == panel.until(INDEX[19]).point_in_time().table
    assert panel.as_of(INDEX[20]).table == panel.point_in_time().until(INDEX[20]).table == (table[0], unknown[1])
    assert panel.until(INDEX[19]).table == (coin, table[1]) and panel.table == tuple(table)
    plain = Panel.from_frames(mid=MID, table=[coin, table[1]])
    assert plain.until(INDEX[19]).digest == panel.until(INDEX[19]).digest and plain.digest != panel.digest
    assert plain.point_in_time().table == unknown
    with pytest.raises(DataError, match="terms_from = 'today' is not accepted"):
        replace(coin, terms_from="today")  # type: ignore[arg-type]
