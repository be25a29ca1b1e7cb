"""The README's Python is run as it stands, and its commands exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from engine import cli
from helpers.project import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
# A command goes on over lines that end with a backslash.
COMMANDS = [
    shlex.split(line, comments=True)
    for line in re.findall(r"^    (hlbt .*)$", README.replace("\\\n", " "), flags=re.MULTILINE)
]


def test_the_python_example(sample_cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = SNIPPETS[0]
    assert '"data_cache", start="2024-10-01", end="2025-03-31"' in code
    Path("data_cache").symlink_to(sample_cache)
    exec(compile(code, "README.md", "exec"), {})
    sharpe, *attribution = capsys.readouterr().out.split()
    assert -10 < float(sharpe) < 10
    assert {"price_pnl_usd", "fee_usd", "funding_usd"} <= set(attribution)


def test_your_own_oracle(
    sample_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HLBT_DATA_CACHE", str(sample_cache))
    Path("my_oracle.py").write_text(SNIPPETS[1], encoding="utf-8")
    words = next(words for words in COMMANDS if "my_oracle.py:BuyTheQuiet" in words)
    monkeypatch.setattr("sys.argv", [*words, "--no-report"])
    with pytest.raises(SystemExit) as done:
        cli.main()
    assert not done.value.code, capsys.readouterr().err
    assert "BuyTheQuiet" in capsys.readouterr().out


def test_the_sweep(sample_cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = SNIPPETS[2].replace('load_panel("data_cache")', 'load_panel("data_cache", end="2024-06-01")')
    Path("data_cache").symlink_to(sample_cache)
    exec(compile(code, "README.md", "exec"), {})
    shown = capsys.readouterr().out
    assert shown.startswith("n ") and shown.rstrip().endswith(", 9)")


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words[:4]))
def test_every_command_of_the_readme_exists(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its options are known; that the commands work is for test_cli.py."""
    monkeypatch.setattr("sys.argv", [*words, "--help"])
    with pytest.raises(SystemExit) as done:
        cli.main()
    assert not done.value.code, capsys.readouterr().err
    shown = capsys.readouterr().out
    assert all(word in shown for word in words if word.startswith("--"))


#: What other tests run, for it needs an exchange, an archive or rows that are not ours to give: words -> the test file.
ELSEWHERE = {
    ("data", "sync", "--source", "api"): "test_sync_api.py",
    ("data", "sync", "--source", "s3"): "test_s3.py",
    ("data", "cost"): "test_s3.py",
    ("data", "import", "freqtrade"): "test_cli.py",
    ("data", "import", "meta"): "test_coin_table.py",
    ("backtest", "--oracle", "research.oracles.numerai:NumeraiTBNOracle"): "test_published_scores_runs.py",
    ("backtest", "--oracle", "research.oracles.crowdcent:CrowdCentOracle"): "test_published_scores_runs.py",
    ("backtest", "--oracle", "research.oracles.file:FileOracle"): "test_published_scores_runs.py",
    ("promote",): "test_promote.py",
    ("live",): "test_live.py",
}
#: Less of the same, so that the tests stay quick.
LESS = {"sweep": ["--sample", "6", "--top", "0"], "validate": ["--top", "0"], "backtest": ["--no-report"]}


@pytest.mark.slow
def test_the_commands_run(
    sample_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every command of the README, in its order, on the sample; those of ELSEWHERE have a test of their own."""
    monkeypatch.setenv("HLBT_DATA_CACHE", str(sample_cache))
    Path("research").symlink_to(ROOT / "research")
    Path("my_oracle.py").write_text(SNIPPETS[1], encoding="utf-8")
    Path("my_weights.csv").write_text("time,BTC,ETH\n2024-06-01T23:00Z,0.5,-0.5\n2024-06-20T23:00Z,0,0\n")
    ran = 0
    for words in COMMANDS:
        elsewhere = [file for start, file in ELSEWHERE.items() if tuple(words[1 : 1 + len(start)]) == start]
        if elsewhere:
            assert words[1] in next((ROOT / "tests").rglob(elsewhere[0])).read_text(encoding="utf-8")
            continue
        # The dates of the README are of real data.
        words = [word.replace("2024-10-01", "2024-03-01").replace("2025-03-31", "2024-06-30") for word in words]
        monkeypatch.setattr("sys.argv", [*words, *LESS.get(words[1], [])])
        with pytest.raises(SystemExit) as done:
            cli.main()
        assert not done.value.code, (words, capsys.readouterr().err)
        ran += 1
    assert ran >= 12
