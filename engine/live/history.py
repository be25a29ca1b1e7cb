"""What the journals of an account say together: the positions that they explain, and who traded it last."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from engine.clock import show
from engine.errors import LiveError, PositionsError, join_first
from engine.live.journal import Journal
from engine.live.orders import Market, Plan
from engine.live.reconcile import Reconciler
from engine.live.state_folder import other_journals


class AccountHistory:
    """The journals of an account; a paper account and a journal in memory have no others.

    Parameters
    ----------
    own : Journal
        Of the strategy that runs.
    label : str
        Of the account.

    Attributes
    ----------
    others : list of Journal
        Of other strategies, as they are now.
    explained_at : Timestamp or None
        Of the positions that the journals add up to, once compared; None before an account's first run.
    notes : list of str
        For people.
    """

    def __init__(self, own: Journal, label: str) -> None:
        self.own, self.label = own, label
        self.others: list[Journal] = []
        self.explained_at: pd.Timestamp | None = None
        self.notes: list[str] = []
        for path in other_journals(own.path, label) if own.path is not None and label != "paper" else ():
            try:
                self.others.append(Journal(path))
            except LiveError as error:  # damaged; only its own strategy depends on it
                self.notes.append(str(error))

    def agree(self, reconciler: Reconciler) -> None:
        """Wait for positions that the journals explain; others end up in ``reconciler.unexplained``.

        The journal whose positions are the newest knows all: each run begins with positions that were explained. Before
        an account's first run none explains any. A paper account never lags, and it settles.
        """
        if self.label == "paper":
            return
        states = [journal.state for journal in (self.own, *self.others)]
        known = [(state.positions_at, -number) for number, state in enumerate(states) if state.positions_at is not None]
        unknown = {sent.request.coin for state in states for sent in state.unresolved.values()}
        if known:
            self.explained_at, number = max(known)
            reconciler.agree(states[-number].positions, unknown)
        elif self.own.path is not None:
            units = reconciler.state.units
            reconciler.unexplained = {coin: (0.0, units[coin]) for coin in sorted(units) if coin not in unknown}

    def judge(self, reconciler: Reconciler, markets: Mapping[str, Market], closes_all: bool, accepted: bool) -> None:
        """Note positions that no journal explains where they may be traded.

        Parameters
        ----------
        reconciler : Reconciler
            After :meth:`agree`.
        markets : mapping of coin to Market
            What is traded.
        closes_all : bool
            Reduce-only orders double nothing: what the account shows is closed.
        accepted : bool
            By the account's owner.

        Raises
        ------
        PositionsError
            Where they may not.
        """
        if not (text := differences(reconciler)):
            return
        unexplained, first = reconciler.unexplained, self.explained_at is None
        if all(coin not in markets and account == 0.0 for coin, (_, account) in unexplained.items()):
            why = "no longer traded at the exchange"  # settled by it, and cannot be ordered again
        elif accepted:
            why = "accepted by the owner"
        elif closes_all and first:
            why = "the first run on this account closes them"
        elif closes_all:
            self.notes.append(f"positions differ from the journal; what the account shows is closed: {text}")
            return
        else:
            raise self._refusal(text)
        rows = [{"coin": coin, "journal": pair[0], "account": pair[1]} for coin, pair in unexplained.items()]
        at, positions = reconciler.exchange_time(), dict(reconciler.state.units)
        self.own.append("positions_accepted", at, positions=positions, differences=rows, reason=why)
        self.notes.append(f"positions that the journal does not explain, {why}: {text}")
        reconciler.unexplained = {}

    def _refusal(self, text: str) -> PositionsError:
        if self.explained_at is None:
            return PositionsError(
                f"Nothing was ordered: {self.label} has positions that no journal explains: {text}. This would be the "
                "first run on the account, and it closes what its weights do not name. If the account is meant for it, "
                "run once with --accept-positions; if a journal of it is elsewhere, name it with --journal."
            )
        return PositionsError(
            f"Nothing was ordered: {self.label} does not hold what the journal {self.own.path} adds up to: {text}. A "
            "node that lags behind shows old positions: run the command again in a minute. If you have traded "
            "yourself, or a position was liquidated, check the account and run once with --accept-positions."
        )

    def warn_of_others(self, plan: Plan) -> None:
        """Note which positions of a strategy that traded the account after this one did would get smaller."""
        own = self.own.state.positions_at
        less = {order.coin for order in plan.orders if order.action not in ("open", "increase")}
        for journal in self.others:
            at, plans = journal.state.positions_at, [entry for entry in journal.entries if entry["kind"] == "plan"]
            if not plans or at is None or (own is not None and at <= own):
                continue
            if theirs := sorted(less & set(plans[-1]["plan"]["weights"])):
                self.notes.append(
                    f"another strategy traded this account last, {journal.path} at {show(at)}: of its positions this "
                    f"run closes or reduces {join_first(theirs)}. Two strategies need two sub-accounts"
                )


def differences(reconciler: Reconciler) -> str:
    """Positions that no journal explains, with their figures; ``""`` when there are none."""
    return join_first(
        f"{coin}: journal {journal:g}, account {account:g}"
        for coin, (journal, account) in reconciler.unexplained.items()
    )
