"""Plan = replay: every plan of a journal is made again, on the panel as it is now, and compared to 1e-9.

Weights come from the oracle and the config, on the cached hours that the plan had and its own row of live quotes; sizes
from the sizing rule, with the equity, positions, prices and quotes of the plan. A difference is a defect and is named
with its cause: data that were revised since, another code of the oracle or the engine, another config, or none of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pandas as pd

from engine.coin import Coin
from engine.config import Execution, RunConfig
from engine.data.panel_loader import cache_path, load_whole_panel
from engine.errors import HlbtError
from engine.live.live_panel import with_live_row
from engine.live.plan_record import digests_of, panel_checksums, revised_text
from engine.live.planner import reduction
from engine.live.spec import StrategySpec
from engine.live.targets import Strategy, TargetProvider
from engine.oracles.base import Oracle
from engine.oracles.fixed_weights import FixedWeights
from engine.panel import Panel
from engine.simulation.sizing import plan_orders

#: Weights and sizes that differ by more are not the same.
TOLERANCE: Final = 1e-9
#: A plan has a digest of each, under these names, and what its change is called.
_CAUSES: Final[Mapping[str, str]] = {
    "oracle": "the oracle's code is not that of the plan",
    "data": "the oracle's data files are not those of the plan",
    "engine": "the engine's code is not that of the plan",
    "config": "the config is not that of the plan",
}


@dataclass(frozen=True)
class PlanDifference:
    """One coin of one plan that is not as it is made again.

    Attributes
    ----------
    instant : str
        ISO 8601, of the trade.
    coin : str
    journal_weight, replay_weight : float
        Signed fractions of equity; NaN = hold.
    journal_units, replay_units : float
        Signed sizes of the order.
    cause : str
        What has changed since, or ``unexplained``.
    """

    instant: str
    coin: str
    journal_weight: float
    replay_weight: float
    journal_units: float
    replay_units: float
    cause: str


@dataclass(frozen=True)
class QuotesDifference:
    """A plan whose row of live quotes is not the row that the cache has of that hour now; no defect.

    Attributes
    ----------
    instant : str
        ISO 8601, of the trade.
    weight_frac : float
        Half the sum of the absolute differences of weights: the part of equity that would be held elsewhere.
    mid_bps : float
        Largest distance of the two mids of a coin that is weighted, basis points; NaN where none has both.
    """

    instant: str
    weight_frac: float
    mid_bps: float


@dataclass(frozen=True)
class PlanCheck:
    """What became of every plan of a journal that was made again.

    Attributes
    ----------
    instants_checked : int
        Plans that were made again.
    differences : tuple of PlanDifference
    quotes : tuple of QuotesDifference
        Plans for which the cache has the decision's hour now.
    not_recorded : int
        Plans of releases that did not record what they were made of.
    unchecked : tuple of (str, str)
        Instants of other plans that could not be made again, with the reason.
    """

    instants_checked: int
    differences: tuple[PlanDifference, ...] = ()
    quotes: tuple[QuotesDifference, ...] = ()
    not_recorded: int = 0
    unchecked: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        if self.differences:
            first, more = self.differences[0], len(self.differences) - 1
            rest = f" and {more} more" if more else ""
            return (
                f"the plan is NOT its replay: {first.coin or 'all'} at {first.instant[:16]} has a weight of "
                f"{first.journal_weight:+.6g}, made again {first.replay_weight:+.6g}, and an order of "
                f"{first.journal_units:+.8g}, made again {first.replay_units:+.8g}{rest} ({first.cause})"
            )
        if self.instants_checked:
            return f"plan = replay: {self.instants_checked} made again without a difference"
        why = self.unchecked[0][1] if self.unchecked else "no plan recorded what it was made of"
        return f"plan = replay: not checked, {why}"

    @property
    def state(self) -> str:
        """``crossed`` with a difference, ``holding`` without, ``pending`` where nothing was checked."""
        return "crossed" if self.differences else "holding" if self.instants_checked else "pending"


def plan_differences(
    entries: Sequence[Mapping[str, Any]],
    panel: Panel | None,
    spec_or_config: StrategySpec | RunConfig,
    oracle: Oracle,
    report: Callable[[int, int, str], object] = lambda done, total, what: None,
) -> PlanCheck:
    """Make the plans of a journal again, and compare.

    Parameters
    ----------
    entries : sequence of mapping
        Of the journal, or some of them; of a book the parts of the spec are made again.
    panel : Panel or None
        As the cache has it now; None for weights that need no market data.
    spec_or_config : StrategySpec or RunConfig
        Rules of the weights.
    oracle : Oracle
    report : callable
        Called with the plans done, their number and what is done.

    Returns
    -------
    PlanCheck
    """
    config = spec_or_config.config if isinstance(spec_or_config, StrategySpec) else spec_or_config
    config = replace(config, data=replace(config.data, end=None))
    name = spec_or_config.name if isinstance(spec_or_config, StrategySpec) else ""
    return _differences(entries, panel, TargetProvider(oracle, config), name, report)


def check_newest(entries: Sequence[Mapping[str, Any]], strategy: Strategy) -> PlanCheck:
    """Make the newest plan of a journal again, right after its run, from the cache as it lies on the disk.

    Parameters
    ----------
    entries : sequence of mapping
        Of the journal.
    strategy : Strategy
        What was traded; of a book every spec is made again.

    Raises
    ------
    HlbtError
        When the cache cannot be read.
    """
    newest = [entry for entry in entries if entry["kind"] == "plan"][-1:]
    targets = strategy.targets
    parts = [(member.name, member.strategy.targets) for member in getattr(targets, "members", ())]
    checks = [
        _differences(newest, _panel_now(newest, own), own, name) for name, own in parts or [(strategy.name, targets)]
    ]
    return PlanCheck(
        sum(check.instants_checked for check in checks),
        tuple(item for check in checks for item in check.differences),
        tuple(item for check in checks for item in check.quotes),
        sum(check.not_recorded for check in checks),
        tuple(item for check in checks for item in check.unchecked),
    )


def _panel_now(plans: Sequence[Mapping[str, Any]], targets: TargetProvider) -> Panel | None:
    config = targets.config
    if not plans or not targets.needs_panel or not cache_path(config.data.cache).is_dir():
        return None
    data = config.data
    return load_whole_panel(data.cache, config.start, pd.Timestamp(plans[-1]["instant"]), data.selection, data.hours)


def _differences(
    entries: Sequence[Mapping[str, Any]],
    panel: Panel | None,
    targets: TargetProvider,
    name: str,
    report: Callable[[int, int, str], object] = lambda done, total, what: None,
) -> PlanCheck:
    """As :func:`plan_differences`, of the spec `name` where the journal is a book's."""
    plans = [own for entry in entries if entry["kind"] == "plan" and (own := _own(entry, name)) is not None]
    digests = digests_of(targets)
    checked, not_recorded = 0, 0
    differences, quotes = list[PlanDifference](), list[QuotesDifference]()
    unchecked = list[tuple[str, str]]()
    for number, entry in enumerate(plans):
        report(number, len(plans), "plans made again")
        if not entry.get("inputs"):
            not_recorded += 1
            continue
        reason, found, quoted = _check(entry, panel, targets, digests)
        if reason:
            unchecked.append((entry["instant"], reason))
            continue
        checked += 1
        differences += found
        quotes += quoted
    report(len(plans), len(plans), "plans made again")
    return PlanCheck(checked, tuple(differences), tuple(quotes), not_recorded, tuple(unchecked))


def _own(entry: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    """The entry of a plan as the spec `name` has it: its part of a book; None where it has no plan in it."""
    parts = entry["plan"].get("parts")
    if not parts:
        return entry
    part = parts["specs"].get(name, {})
    return {**entry, "plan": part["plan"], "inputs": part["inputs"]} if part.get("plan") else None


def _check(
    entry: Mapping[str, Any], panel: Panel | None, targets: TargetProvider, digests: Mapping[str, str | None]
) -> tuple[str, list[PlanDifference], list[QuotesDifference]]:
    """Why a plan cannot be made again; its differences; how its quotes differ from the cache."""
    inputs, plan = entry["inputs"], entry["plan"]
    if (start := inputs.get("decisions_from")) is not None:
        targets = TargetProvider(targets.oracle, targets.config, pd.Timestamp(start))
    if inputs["closes_all"]:
        targets = TargetProvider(FixedWeights.of({}), targets.config)
        digests = {**digests, **{name: inputs[name] for name in ("oracle", "data", "config")}}
    elif inputs["source"] != digests["source"]:
        return f"its weights are of {inputs['source']}, not of {digests['source']}", [], []
    recorded = inputs["panel"]
    if recorded is not None and panel is None:
        return "there is no cache", [], []
    then = None
    if recorded is not None and panel is not None:
        if reason := _short(panel, recorded):
            return reason, [], []
        then = _panel_then(panel, recorded)
    changed = [text for name, text in _CAUSES.items() if inputs[name] != digests[name]]
    try:
        weights = _weights(targets, plan, inputs, _with_quotes(then, inputs, plan, targets.config))
        units = _sizes(plan, inputs, weights, entry.get("reduces_only", False))
    except HlbtError as error:
        cause = "; ".join([*_revised(recorded, then), *changed]) or "unexplained"
        unknown = math.nan, math.nan, math.nan, math.nan
        whole = PlanDifference(entry["instant"], "", *unknown, f"it cannot be made again: {error} ({cause})")
        return "", [whole], []
    differing = _differing(plan, weights, units)
    if differing:
        cause = "; ".join([*_revised(recorded, then), *changed]) or "unexplained"
        differing = [replace(item, instant=entry["instant"], cause=cause) for item in differing]
    return "", differing, _quotes(entry, panel, then, targets)


def _short(panel: Panel, recorded: Mapping[str, Any]) -> str:
    """Why the cache lacks what a plan had; ``""`` where it has it."""
    first, last = pd.Timestamp(recorded["first"]), pd.Timestamp(recorded["last"])
    if first < panel.index[0] or last > panel.index[-1]:
        return f"the cache has no hours from {recorded['first'][:16]} to {recorded['last'][:16]}"
    return ""


def _panel_then(panel: Panel, recorded: Mapping[str, Any], last: pd.Timestamp | None = None) -> Panel:
    """The hours and coins of `panel` that a plan had; a coin that is there no more is NaN."""
    coins = recorded["coins"]
    stop = pd.Timestamp(recorded["last"]) if last is None else last
    rows = slice(panel.index.searchsorted(pd.Timestamp(recorded["first"])), panel.index.searchsorted(stop, "right"))
    if list(panel.coins) == coins and rows.start == 0:
        return panel.until(stop)
    column = {coin: place for place, coin in enumerate(panel.coins)}
    places = np.array([column.get(coin, -1) for coin in coins])
    fields = {}
    for name, values in panel.fields.items():
        fields[name] = np.where(places >= 0, values[rows][:, places], np.nan)
    tradable = panel.tradable[rows][:, places] & (places >= 0)
    table = tuple(panel.table[place] if place >= 0 else Coin(coin) for coin, place in zip(coins, places, strict=True))
    cut = replace(panel, index=panel.index[rows], coins=tuple(coins), fields=fields, tradable=tradable, table=table)
    return cut.until(stop)


def _with_quotes(
    then: Panel | None, inputs: Mapping[str, Any], plan: Mapping[str, Any], config: RunConfig
) -> Panel | None:
    if then is None or (row := inputs["panel"]["row"]) is None:
        return then
    cells = {
        name: {coin: math.nan if value is None else value for coin, value in zip(then.coins, values, strict=True)}
        for name, values in row.items()
    }
    return with_live_row(then, pd.Timestamp(plan["instant"]), cells, config.data.in_session_only)


def _weights(
    targets: TargetProvider, plan: Mapping[str, Any], inputs: Mapping[str, Any], panel: Panel | None
) -> dict[str, float]:
    """Weights other than 0; NaN = hold."""
    instant, decision = pd.Timestamp(plan["instant"]), pd.Timestamp(plan["decision"])
    made = targets.weights(instant, decision, inputs["universe"], panel)
    return {coin: float(weight) for coin, weight in made.items() if weight != 0.0}


def _sizes(
    plan: Mapping[str, Any], inputs: Mapping[str, Any], weights: Mapping[str, float], reduces_only: bool
) -> dict[str, float]:
    """Signed sizes of the orders, by the rule of sizing; of a demoted strategy what reduces."""
    markets, equity = inputs["markets"], plan["equity_usd"]
    mids = {coin: price for coin, price in plan["prices"].items() if price is not None}
    orders = plan_orders(
        weights,
        plan["positions"],
        0.0 if equity is None else equity,  # closes need none
        mids | {coin: mid for coin, (mid, _) in markets.items()},
        dict.fromkeys(markets, True),
        {coin: decimals for coin, (_, decimals) in markets.items() if decimals is not None},
        replace(Execution(), **inputs["rules"]),
    )
    if reduces_only:
        orders = [kept for order in orders if (kept := reduction(order, plan["positions"].get(order.coin, 0.0)))]
    return {order.coin: order.units for order in orders if order.outcome == "order"}


def _differing(
    plan: Mapping[str, Any], weights: Mapping[str, float], units: Mapping[str, float]
) -> list[PlanDifference]:
    """Coins of a plan whose weight or size is another, without instant and cause."""
    journal = {coin: math.nan if weight is None else weight for coin, weight in plan["weights"].items()}
    sent = {order["coin"]: order["units"] for order in plan["orders"]}
    found = []
    for coin in sorted(journal.keys() | weights.keys() | sent.keys() | units.keys()):
        pair = journal.get(coin, 0.0), weights.get(coin, 0.0)
        sizes = sent.get(coin, 0.0), units.get(coin, 0.0)
        if not (_same(*pair, 1.0) and _same(*sizes, max(map(abs, sizes)))):
            found.append(PlanDifference("", coin, *pair, *sizes, ""))
    return found


def _same(then: float, now: float, scale: float) -> bool:
    return (math.isnan(then) and math.isnan(now)) or abs(then - now) <= TOLERANCE * scale


def _revised(recorded: Mapping[str, Any] | None, then: Panel | None) -> list[str]:
    """What of the data is not as a plan read it, at most one phrase."""
    if recorded is None or then is None:
        return []
    sums = recorded["checksums"]
    names = [name for name in sums if name in then.fields]
    text = revised_text(sums, panel_checksums(then, names), then)
    return [f"data revised since: {text}"] if text else []


def _quotes(
    entry: Mapping[str, Any], panel: Panel | None, then: Panel | None, targets: TargetProvider
) -> list[QuotesDifference]:
    """The weights of a plan on the cache's own row of its decision, where there is one now."""
    inputs, plan = entry["inputs"], entry["plan"]
    decision = pd.Timestamp(plan["decision"])
    if panel is None or then is None or inputs["panel"]["row"] is None or panel.index[-1] < decision:
        return []
    now = _panel_then(panel, inputs["panel"], decision)
    try:
        weights = _weights(targets, plan, inputs, now)
    except HlbtError:
        return []  # what the row of quotes had and the cache lacks is no defect of the plan
    held = {coin: weight for coin, weight in plan["weights"].items() if weight is not None}
    other = {coin: weight for coin, weight in weights.items() if not math.isnan(weight)}
    moved = math.fsum(abs(held.get(coin, 0.0) - other.get(coin, 0.0)) for coin in held.keys() | other.keys()) / 2.0
    mids = dict(zip(now.coins, now.fields["mid"][-1].tolist(), strict=True))
    seen = dict(zip(inputs["panel"]["coins"], inputs["panel"]["row"]["mid"], strict=True))
    apart = [
        1e4 * abs(mids[coin] / seen[coin] - 1.0)
        for coin in held.keys() | other.keys()
        if coin in mids and seen.get(coin) and not math.isnan(mids[coin])
    ]
    return [QuotesDifference(entry["instant"], moved, max(apart, default=math.nan))]
