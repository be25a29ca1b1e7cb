"""Files of the live path that cannot be read or written, and what the status makes of a journal."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import pytest

from engine import HyperLiquidDEX, PaperDEX, RunConfig, load_panel
from engine.errors import DataError, LiveError, SpecError
from engine.live.alerts import send_alert
from engine.live.credentials import read_credentials
from engine.live.journal import Journal
from engine.live.orders import OrderRequest
from engine.live.spec import canonical, read_spec
from engine.monitoring.account_replay import drift
from engine.monitoring.fills import filled_orders
from engine.retries import RetryPolicy
from helpers.live_world import SECRET, Run, World, momentum_spec
from helpers.panels import random_panel

pytestmark = pytest.mark.slow

NOW = pd.Timestamp("2025-06-01T22:59:30Z")
ORDER = OrderRequest("0x" + "7" * 32, "BTC", 0.01, 101_000.0, False)


# Files ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("not JSON " + SECRET, "not JSON"),
        (json.dumps([SECRET]), "not a JSON object"),
        (None, "does not exist"),
        ("folder", "cannot be read"),
    ],
)
def test_credentials_that_cannot_be_read(tmp_path: Path, content: str | None, said: str) -> None:
    path = tmp_path / "keys.json"
    if content == "folder":
        path.mkdir(0o700)
    elif content is not None:
        path.write_text(content)
        path.chmod(0o600)
    with pytest.raises(LiveError, match=said) as caught:
        read_credentials(path)
    assert SECRET not in str(caught.value)


def test_a_key_off_the_curve_is_not_shown(tmp_path: Path) -> None:
    """Of the right form, and no key: above the order of the curve. The library's own message quotes it."""
    path, key = tmp_path / "keys.json", "f" * 64
    path.write_text(json.dumps({"secret_key": key}))
    path.chmod(0o600)
    with pytest.raises(LiveError, match="no valid private key") as caught:
        HyperLiquidDEX(credentials=path).label  # noqa: B018 - asking is what reads the key
    assert key not in str(caught.value) and caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text + ",", "not JSON"),
        (lambda text: text.replace("1.1", "NaN"), "not JSON"),
        (lambda text: signed({**json.loads(text), "trails": 1}), "unknown trails. Did you mean 'trials'"),
        (lambda text: signed({k: v for k, v in json.loads(text).items() if k != "trials"}), "missing trials"),
        (lambda text: signed({**json.loads(text), "limits": {"gros": 1}}), "Did you mean 'gross'"),
    ],
    ids=["comma", "nan", "unknown", "missing", "limit"],
)
def test_specs_that_cannot_be_read(tmp_path: Path, change: Callable[[str], str], said: str) -> None:
    path = momentum_spec(tmp_path, tmp_path)
    path.write_text(change(path.read_text()))
    with pytest.raises(SpecError) as caught:
        read_spec(path)
    assert said in str(caught.value) and "momentum.json" in str(caught.value)


def signed(content: dict[str, object]) -> str:
    """The content with the digest that fits it."""
    import hashlib

    content.pop("digest")
    return json.dumps({**content, "digest": hashlib.sha256(canonical(content).encode()).hexdigest()})


def test_a_spec_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="hlbt promote"):
        read_spec(tmp_path / "momentum.json")


def test_the_status_of_a_name_that_nothing_has(world: World, run: Run) -> None:
    """The account is told, and that nothing has run; it was a page of nothing."""
    assert run(world.rebalance({"BTC": 0.3})).code == 0
    assert run(world.words("status", "book")).code == 0
    before = sorted(world.journals.iterdir())
    done = run(world.words("status", "typo"))
    told = done.out.replace("\n", "")
    assert done.code == 0 and "There is no journal" in told and "typo-testnet" in told and "1 position" in told
    assert sorted(world.journals.iterdir()) == before


def test_a_paper_account_that_cannot_be_read(tmp_path: Path) -> None:
    panel, state = random_panel(3, 48, 2), tmp_path / "paper.json"
    PaperDEX(panel, state=state).advance(panel.index[3])
    content = json.loads(state.read_text())
    held = {"units": 1.0, "price": 1.0, "missing": 0}
    for change, said in (
        ({"schema": 9}, "schema 9"),
        ({"cash_usd": None}, "Delete it"),
        ({"positions": {"GONE": held}}, "holds GONE"),
    ):
        state.write_text(json.dumps({**content, **change}))
        with pytest.raises(LiveError, match=said):
            PaperDEX(panel, state=state)
    state.unlink()
    with pytest.raises(DataError, match="no row at"):
        PaperDEX(panel, state=state, start=panel.index[-1] + pd.Timedelta(hours=1))


# Status ---------------------------------------------------------------------------------------------------------------


def test_a_status_that_cannot_be_told(world: World, run: Run) -> None:
    assert run(world.rebalance({"BTC": 0.3})).code == 0
    [journal] = world.journals.glob("book-*.jsonl")
    words = ["live", "status", "book", "--journal", str(world.journals)]
    done = run([*words, "--out", str(journal / "page.html")])
    assert done.code == 1 and "--out" in done.err
    found = run([*words, "--json"]).json
    assert found["drift"]["reason"] == "It takes two rebalances." and found["runs"][0]["state"] == "at target"
    journal.with_name(journal.name[:-7] + "ff.jsonl").write_bytes(journal.read_bytes())
    done = run(words)
    assert done.code == 1 and "several accounts" in done.err


def test_an_order_of_unknown_fate_is_in_the_status(world: World, run: Run) -> None:
    assert run(world.rebalance({"BTC": 0.3})).code == 0
    [path] = world.journals.glob("book-*.jsonl")
    journal = Journal(path)
    order = {**vars(ORDER), "mid": 100_000.0}
    journal.append("intent", NOW, instant=NOW.isoformat(), expires_ms=1, orders=[order])
    done = run(["live", "status", "book", "--journal", str(world.journals)])
    assert done.code == 0 and "Orders of unknown status: 1" in done.out


def test_the_price_of_a_resolved_order_is_that_of_its_fills() -> None:
    """`orderStatus` has no price: 1 at 10 and 3 at 12 is 11.50, 1,500 bps above mid."""
    order = {**vars(ORDER), "mid": 10.0}
    fills = [
        {"cloid": ORDER.cloid, "units": units, "price": price, "fee_usd": 0.01} for units, price in ((1, 10), (3, 12))
    ]
    entries = [
        {"kind": "intent", "instant": NOW.isoformat(), "orders": [order]},
        {"kind": "resolved", "answers": [{"cloid": ORDER.cloid, "fate": "filled", "units": 4.0, "price": None}]},
    ]
    assert filled_orders(entries) == []  # not told before it is known
    [found] = filled_orders([*entries, {"kind": "fills", "fills": fills}])
    assert found.price == 11.5 and found.slippage_bps == pytest.approx(1_500) and found.notional_usd == 40.0
    assert found.fee_bps == pytest.approx(1e4 * 0.02 / 40) and found.model_fee_bps is None


def test_drift_without_the_hours_that_were_traded(sample_cache: Path) -> None:
    config = RunConfig.from_dict({"data": {"cache": str(sample_cache)}})
    plan = {"equity_usd": 1.0, "plan": {"weights": {}}}
    instants = [(NOW + pd.Timedelta(days=days)).ceil("h").isoformat() for days in (3_000, 3_001)]
    found = drift([{**plan, "instant": instant} for instant in instants], config)
    assert found["rows"] == [] and found["reason"]


def test_fills_that_could_not_be_asked_for_are_noted_by_the_next_run(
    world: World, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fee of an order is in the account's history only; without it the order counts, the fee waits."""
    monkeypatch.setattr("engine.live.hyperliquid.PATIENCE", RetryPolicy((), (), 60.0))
    fault = world.server.inject("bad_gateway", on="userFillsByTime", times=99)
    words = ["live", "status", "book", "--journal", str(world.journals), "--json"]
    assert run(world.rebalance({"BTC": 0.3})).code == 0
    found = run(words).json
    assert found["costs"]["orders"] == 1 and found["costs"]["fee_bps"] is None
    fault.times = 0
    assert run(world.rebalance({"BTC": 0.3})).code == 0  # nothing to order, and the fills of before
    assert run(words).json["costs"]["fee_bps"] == pytest.approx(4.5, abs=0.05)


def test_a_made_up_cache_is_named_before_there_is_anything_to_compare(sample_cache: Path, tmp_path: Path) -> None:
    for cache, made_up in ((sample_cache, True), (tmp_path / "absent", False)):
        found = drift([], RunConfig.from_dict({"data": {"cache": str(cache)}}))
        assert (found["rows"], found["synthetic"]) == ([], made_up)


def test_a_rerun_of_an_instant_does_not_drift(sample_cache: Path) -> None:
    """Its plan has the equity after the costs of the first: that was called a drift of -0.022 %."""
    config = RunConfig.from_dict({"data": {"cache": str(sample_cache)}})
    start = load_panel(sample_cache).index[-72].normalize() + pd.Timedelta(hours=23)
    plan = {"plan": {"weights": {"BTC": 0.5, "ETH": -0.5}}}
    first, second = ({**plan, "instant": (start + pd.Timedelta(days=days)).isoformat()} for days in (0, 1))
    model = drift([{**first, "equity_usd": 10_000.0}, {**second, "equity_usd": 1.0}], config)["rows"][1]["backtest_usd"]
    equities = [(first, 10_000.0), (first, 9_997.8), (second, model), (second, model - 2.2)]
    rows = drift([{**item, "equity_usd": equity} for item, equity in equities], config)["rows"]
    assert [row["drift_frac"] for row in rows] == pytest.approx([0.0, 0.0], abs=1e-12)


def test_a_log_has_one_line_an_order(world: World, run: Run) -> None:
    assert run(world.rebalance({"BTC": 0.3, "ETH": -0.2})).code == 0
    words = ["live", "log", "book", "--journal", str(world.journals)]
    orders = run([*words, "--json"]).json["orders"]
    lines = run(words).out.splitlines()
    assert len(lines) == len(orders) == len(world.server.orders)
    for line, order in zip(lines, orders, strict=True):
        assert order["coin"] in line and "filled" in line and order["status"] == "filled"
        assert order["price"] > 0 and order["fee_usd"] > 0 and order["filled_units"] == order["units"]
    [path] = world.journals.glob("book-*.jsonl")
    Journal(path).append("intent", NOW, instant=NOW.isoformat(), expires_ms=1, orders=[{**vars(ORDER), "mid": 1e5}])
    assert "unknown (the next run looks it up)" in run(words).out.splitlines()[-1]


def test_slack_and_discord_are_sent_what_they_show() -> None:
    got: list[dict[str, object]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/hook"
        assert send_alert(url, "alert", {"strategy": "a", "network": "testnet", "error": "x" * 3_000, "code": 4}) == ""
        done = {"strategy": "a", "network": "testnet", "instant": "2025", "equity_usd": 1_234.5, "orders": 2, "code": 0}
        assert send_alert(url, "alert", done) == ""
        server.shutdown()
    assert len(str(got[0]["content"])) == 2_000 and "x" * 3_000 in str(got[0]["text"])
    sentence = "hlbt: a on testnet is at its target for 2025: 2 orders, equity 1,234.50 USD"
    assert got[1]["text"] == got[1]["content"] == sentence
    assert got[1]["equity_usd"] == 1_234.5
