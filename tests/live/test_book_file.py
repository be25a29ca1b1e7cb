"""The file of a book: what is refused and by which words, and what the account has of its specs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.errors import SpecError
from engine.live.book import BookTargets
from engine.live.book_file import account_config, read_book, read_strategy, spec_paths
from engine.live.risk_limits import Limits
from helpers.live_world import momentum_spec

HALF = '[[spec]]\nname = "fast"\nshare = 0.5\n'
#: Text of the file, and what is said of it.
WRONG = {
    "": "names no spec. Add one: [[spec]]",
    "[book": "is not TOML",
    "[boks]\n" + HALF: "the file has no key 'boks'. Did you mean 'book'?",
    '[book]\nnames = "x"\n' + HALF: "[book] has no key 'names'. Did you mean 'name'?",
    '[book]\nname = "other"\n' + HALF: "holds the book 'other'. Rename the file to other.toml",
    "[book]\nlimits = 3\n" + HALF: "[book.limits] are tables of keys",
    "[book.limits]\ngros = 1\n" + HALF: "Unknown limit 'gros'",
    HALF + "weight = 1\n": "[[spec]] has no key 'weight'",
    '[[spec]]\nname = "fast"\n': "the share of fast is None; write a fraction",
    '[[spec]]\nname = "fast"\nshare = 1.5\n': "the share of fast is 1.5",
    '[[spec]]\nname = "fast"\nshare = 1e-320\n': "above 0, at least 0.000001, and at most 1",
    '[[spec]]\nname = "fast"\nshare = true\n': "the share of fast is True",
    '[[spec]]\nname = "fast"\nshare = nan\n': "the share of fast is nan",
    '[[spec]]\nname = "fast"\nfile = "fast.json"\nshare = 0.5\n': "has either a name or a file",
    HALF + HALF: "names the spec fast twice",
    HALF + '[[spec]]\nname = "slow"\nshare = 0.6\n': "the shares add up to 1.1, above 1: fast 0.5, slow 0.6",
    '[[spec]]\nname = "unassigned"\nshare = 0.5\n': "a word of hlbt's own",
    '[[spec]]\nname = "gone"\nshare = 0.5\n': "gone.json cannot be read",
}
#: Keys that cannot differ on one account.
DIFFERENT: list[dict[str, Any]] = [
    {"execution": {"hour_utc": 11}},
    {"execution": {"lots": False}},
    {"execution": {"delay_hours": 1}},
    {"costs": {"half_spread_bps": 3.0}},
    {"data": {"dexes": ["", "xyz"]}},
    {"account": {"margin": False}},
]


def specs(folder: Path, slow: dict[str, Any] | None = None, limits: Limits | None = None) -> None:
    momentum_spec(folder, folder / "cache", "fast")
    momentum_spec(folder, folder / "cache", "slow", limits, **(slow or {}))


def written(folder: Path, text: str) -> Path:
    path = folder / "book.toml"
    path.write_text(text)
    return path


BOTH = HALF + '[[spec]]\nfile = "slow.json"\nshare = 0.25\n'


@pytest.mark.parametrize(("text", "says"), WRONG.items(), ids=range(len(WRONG)))
def test_what_a_book_may_not_say(tmp_path: Path, text: str, says: str) -> None:
    specs(tmp_path)
    with pytest.raises(SpecError) as caught:
        read_book(written(tmp_path, text))
    assert says in str(caught.value) and "book.toml" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("config", DIFFERENT, ids=str)
def test_keys_that_cannot_differ_on_one_account_are_named(tmp_path: Path, config: dict[str, Any]) -> None:
    specs(tmp_path, config)
    (section, keys), key = next(iter(config.items())), next(iter(next(iter(config.values()))))
    for read in (read_book, account_config):
        with pytest.raises(SpecError, match=rf"{section}\.{key} is .* in fast and .* in slow"):
            read(written(tmp_path, BOTH))
    assert keys


def test_what_is_refused_of_renormalising_of_names_and_of_edits(tmp_path: Path) -> None:
    renormalise = {"execution": {"untradable": "renormalise"}}
    momentum_spec(tmp_path, tmp_path / "cache", "fast", **renormalise)
    momentum_spec(tmp_path, tmp_path / "cache", "slow", **renormalise)
    with pytest.raises(SpecError, match="cannot be netted"):
        read_book(written(tmp_path, BOTH))
    read_book(written(tmp_path, HALF))
    momentum_spec(tmp_path, tmp_path / "cache", "book")
    with pytest.raises(SpecError, match="has the name of the spec"):
        read_book(written(tmp_path, HALF))
    (tmp_path / "book.json").unlink()
    (tmp_path / "fast.json").write_text((tmp_path / "fast.json").read_text().replace("momentum", "momentun"))
    with pytest.raises(SpecError, match="was edited after its promotion"):
        read_book(written(tmp_path, HALF))


def test_an_account_has_the_coins_the_days_and_the_loosest_limits_of_its_specs(tmp_path: Path) -> None:
    slow = {
        "execution": {"every_days": 2, "weekdays": ["mon"]},
        "data": {"coins": ["BTC", "S*"], "start": "2024-02-01"},
        "account": {"initial_equity_usd": 4_000, "max_gross": 2.0},
    }
    specs(tmp_path, slow, Limits(gross=2.2, order_notional_usd=100.0, data_age_hours=1.0, daily_loss_frac=None))
    strategy = read_strategy(written(tmp_path, BOTH), None)
    config, limits = strategy.config, strategy.limits
    assert isinstance(strategy.targets, BookTargets) and strategy.name == "book"
    assert [path.name for path in spec_paths(tmp_path / "book.toml")] == ["fast.json", "slow.json"]
    assert (config.execution.every_days, len(config.execution.weekdays)) == (1, 7)
    assert (config.data.coins, config.data.start) == (("*", "S*", "BTC"), None)
    # 4,000 USD are a quarter: the account at which neither is larger than its gates had it.
    assert (config.account.initial_equity_usd, config.account.max_gross) == (16_000.0, 2.0)
    assert (limits.gross, limits.order_notional_usd, limits.daily_loss_frac) == (2.2, None, None)
    assert (limits.data_age_hours, limits.equity_change_frac) == (1.0, 0.5)
    own = read_book(written(tmp_path, "[book.limits]\ngross = 1.5\n" + BOTH))
    assert own.limits.gross == 1.5 and own.key != strategy.key
    assert read_book(written(tmp_path, HALF)).key != read_book(written(tmp_path, HALF.replace("0.5", "0.4"))).key
