"""Specs and credentials: what is refused, and live runs of a promoted strategy, on the exchange and on paper."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from engine.errors import LiveError, SpecError
from engine.live.credentials import read_credentials
from engine.live.risk_limits import Limits
from engine.live.spec import canonical, read_spec, write_spec
from helpers.live_world import SECRET, Run, World, momentum_spec, near

pytestmark = pytest.mark.slow


def test_plan_and_run_of_a_spec_bring_the_data_and_trade_what_the_oracle_says(world: World, run: Run) -> None:
    spec = momentum_spec(world.folder, world.folder / "cache")
    now = pd.Timestamp.now("UTC").isoformat()
    world.server.answers.changes["MATIC"] = ({"szDecimals": ...}, {})  # a coin that nobody can read ends nothing
    planned = run(world.words("plan", spec, "--json", "--now", now))
    assert planned.code == 0, planned.err
    assert world.server.asked("candleSnapshot") and not world.server.asked("order")
    weights = planned.json["weights"]
    assert sorted(weights.values()) == [-0.5, 0.5]
    done = run(world.words("run", spec, "--execute", "--json", "--now", now))
    assert done.code == 0, done.err
    near(world, weights)
    dry = run(world.words("run", spec))
    assert dry.code == 0 and "Nothing was sent" in dry.out
    world.check()


def test_a_spec_that_was_edited_or_whose_oracle_changed_is_refused(
    world: World, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = momentum_spec(world.folder, world.folder / "cache")
    content = spec.read_text()
    spec.write_text(content.replace('"gross": 1.1', '"gross": 9.9'))
    done = run(world.words("run", spec, "--execute"))
    assert done.code == 5 and "momentum.json" in done.err
    spec.write_text(content)
    monkeypatch.setattr("engine.live.spec.files_digest", lambda files: "f" * 64)
    done = run(world.words("run", spec, "--execute"))
    assert done.code == 5 and "research.oracles.momentum:Momentum" in done.err and not world.server.asked("order")
    done = run(world.words("run", spec, "--set", "costs.taker_bps=0"))
    assert done.code == 5 and "data.cache" in done.err


def test_a_paper_account_on_live_quotes(world: World, run: Run) -> None:
    """No key, no order on the exchange; the account is a file, and the next day pays the night's funding."""
    start = world.half_past_two()
    spec = momentum_spec(world.folder, world.folder / "cache")
    world.credentials.unlink()
    words = world.words("run", spec, "--execute", "--json", "--network", "paper")
    done = run([*words, "--now", start.isoformat()])
    assert done.code == 0, done.err
    assert len(done.json["orders"]) == 2 and not world.server.asked("order")
    state = json.loads((world.journals / "momentum-paper.json").read_text())
    assert len(state["positions"]) == 2 and state["cash_usd"] != 10_000
    world.server.advance(25)
    later = pd.Timestamp(world.server.now, unit="ms", tz="UTC").isoformat()
    done = run([*words, "--now", later])
    assert done.code == 0, done.err


# Credentials ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [
        ({"secret_key": SECRET}, 0o644, "chmod"),
        ({"secret_key": SECRET}, 0o640, "chmod"),
        ({"secret_key": SECRET[:-1]}, 0o600, "secret_key"),
        ({"secret_key": SECRET, "account_address": "0x12"}, 0o600, "account_address"),
        ({"secret_key": SECRET, "multi_sig": {"authorized_users": [{"secret_key": "a"}]}}, 0o600, "multi_sig"),
        ({"secret_key": SECRET, "multi_sig": True}, 0o600, "multi_sig"),
        ({"secret_kye": SECRET}, 0o600, "secret_key"),
    ],
)
def test_credentials_that_are_refused(tmp_path: Path, content: dict[str, object], mode: int, said: str) -> None:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps(content))
    path.chmod(mode)
    with pytest.raises(LiveError, match=said) as caught:
        read_credentials(path)
    assert SECRET[:-1] not in str(caught.value)


def test_the_template_is_the_form_that_is_read() -> None:
    import engine.live

    template = Path(engine.live.__file__).parent / "hyperliquid_config.template.json"
    assert set(json.loads(template.read_text())) == {"secret_key", "account_address", "multi_sig", "vault_address"}


def test_a_spec_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = momentum_spec(tmp_path, tmp_path / "cache", limits=Limits(coin_weight=0.2), execution={"tranches": 2})
    spec = read_spec(path)
    assert spec.limits.coin_weight == 0.2 and spec.config.execution.tranches == 2
    again = tmp_path / "again"
    write_spec(spec, again / path.name)
    assert (again / path.name).read_bytes() == path.read_bytes()
    assert read_spec(again / path.name).digest == spec.digest
    assert replace(spec, trials=2).digest != spec.digest


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda content: {**content, "trials": 2}, "edited"),
        (lambda content: {**content, "parameters": {**content["parameters"], "n": 9}}, "edited"),
        (lambda content: {**content, "digest": None}, "edited"),
        (lambda content: {**content, "schema": 9}, "schema"),
        (lambda content: [content], "no strategy spec"),
    ],
)
def test_a_spec_that_is_not_what_was_promoted_is_refused(
    tmp_path: Path, change: Callable[[object], object], said: str
) -> None:
    path = momentum_spec(tmp_path, tmp_path)
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(SpecError, match=said):
        read_spec(path)


def test_a_spec_whose_oracle_was_edited_is_refused(tmp_path: Path) -> None:
    """Its file, or one that it imports."""
    from engine.live.spec import load_live_oracle
    from engine.oracles.loading import load_oracle, oracle_code
    from engine.provenance import files_digest

    (tmp_path / "spec_helper.py").write_text("WEIGHT = 0.5\n")
    code = tmp_path / "own_oracle.py"
    code.write_text(
        "import pandas as pd\nfrom engine import Oracle\nfrom spec_helper import WEIGHT\n\n\n"
        "class Half(Oracle):\n    def weight_matrix(self, panel, decisions):\n"
        "        return pd.DataFrame(WEIGHT, index=decisions, columns=['BTC'])\n"
    )
    path = f"{code}:Half"
    digest = files_digest(oracle_code(load_oracle(path, {})))
    spec = read_spec(momentum_spec(tmp_path, tmp_path))
    spec = replace(spec, oracle=path, parameters={}, digests={**spec.digests, "oracle": digest})
    oracle, notes = load_live_oracle(spec)
    assert type(oracle).__name__ == "Half" and notes == []
    assert "engine" in load_live_oracle(replace(spec, digests={**spec.digests, "engine": "0" * 64}))[1][0]
    for file in (code, tmp_path / "spec_helper.py"):
        before = file.read_text()
        file.write_text(before + "# a word\n")
        with pytest.raises(SpecError, match=r"own_oracle\.py:Half has changed since 'momentum'"):
            load_live_oracle(spec)
        file.write_text(before)


def test_a_spec_has_plain_finite_values_its_own_name_and_known_limits(tmp_path: Path) -> None:
    spec = read_spec(momentum_spec(tmp_path, tmp_path))
    with pytest.raises(SpecError, match="finite"):
        canonical({"a": math.nan})
    with pytest.raises(SpecError, match=r"other\.json"):
        write_spec(spec, tmp_path / "other.json")
    (tmp_path / "copy.json").write_bytes((tmp_path / "momentum.json").read_bytes())
    with pytest.raises(SpecError, match="Rename"):
        read_spec(tmp_path / "copy.json")
    with pytest.raises(SpecError, match="Did you mean 'gross'"):
        Limits.from_dict({"gros": 1})
    with pytest.raises(SpecError, match=r"limits\.gross"):
        Limits(gross=-1.0)


def test_what_was_validated_on_made_up_prices_trades_no_real_money(tmp_path: Path, run: Run) -> None:
    spec = read_spec(momentum_spec(tmp_path, tmp_path))
    assert not spec.synthetic
    path = tmp_path / "made-up.json"
    write_spec(replace(spec, name="made-up", gates={**spec.gates, "run": {"synthetic": True}}), path)
    assert read_spec(path).synthetic
    done = run(["live", "run", str(path), "--execute", "--network", "mainnet", "--yes-mainnet"])
    assert done.code == SpecError.exit_code and "synthetic data" in done.err
