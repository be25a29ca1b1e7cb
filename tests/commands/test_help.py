"""The help of every command, walked off the tree: an example that parses, options that are told, a width that fits."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer

from engine import cli
from engine.commands.options import complete_settings, parameters_of
from helpers.commands import Hlbt

HLBT = Path(sys.executable).parent / "hlbt"


def leaves(node: Any, words: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Every command by the words that call it."""
    inner = getattr(node, "commands", None)
    if inner is None:
        return {words: node}
    return {path: leaf for name, below in inner.items() for path, leaf in leaves(below, (*words, name)).items()}


TREE = typer.main.get_command(cli.app)
COMMANDS = leaves(TREE)
GROUPS = sorted({path[:1] for path in COMMANDS if len(path) > 1})


def test_the_process_of_a_command_builds_that_one_alone() -> None:
    for word in [*TREE.commands, "nosuch", "", "--version"]:  # type: ignore[attr-defined]
        built = typer.main.get_group(cli._called(word))
        assert set(built.commands) == ({word} if word in TREE.commands else set(TREE.commands))  # type: ignore[attr-defined]
    assert set(typer.main.get_group(cli.app).commands) == set(TREE.commands)  # type: ignore[attr-defined]
    for words in (["backtest", "--help"], ["live", "plan", "--help"], ["nosuch"]):
        shown = subprocess.run([HLBT, *words], capture_output=True, text=True, env={**os.environ, "COLUMNS": "80"})
        assert f"Usage: hlbt {' '.join(words[:-1])}" in shown.stdout + shown.stderr


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help(path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, hlbt: Hlbt) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERMINAL_WIDTH", "80")
    code, shown, err = hlbt(*path, "--help")
    assert (code, err) == (0, "")
    assert max(map(len, shown.splitlines())) <= 80
    assert f"Usage: hlbt {' '.join(path)} " in shown
    plain = " ".join(re.sub(r"[│╭╮╰╯─]", " ", shown).split())
    for option in ("--config", "--set", "--json"):
        assert option in plain, option
    for parameter in COMMANDS[path].params:
        assert getattr(parameter, "help", None), f"{parameter.name} is not explained"
    example = re.search(r"Example: (hlbt .*)", " ".join(COMMANDS[path].help.split()))
    assert example, "no example"
    # Its words are read as the command reads them: a renamed option makes it fail.
    words = shlex.split(example[1])[1:]
    assert tuple(words[: len(path)]) == path
    COMMANDS[path].make_context("hlbt", words[len(path) :])


@pytest.mark.parametrize(
    "path", [(), *sorted({path[:1] for path in COMMANDS if len(path) > 1}), ("data", "import")], ids=str
)
def test_a_group_lists_what_is_in_it(path: tuple[str, ...], hlbt: Hlbt) -> None:
    code, shown, err = hlbt(*path, "--help")
    assert (code, err) == (0, "")
    for words in COMMANDS:
        if words[: len(path)] == path:
            assert re.search(rf"\b{words[len(path)]}\b", shown), words


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_is_given_its_completion(shell: str) -> None:
    """`hlbt --install-completion` puts this where the shell finds it; it asks hlbt itself for the words."""
    # typer asks which shell called it; here none did, so the shell is named.
    named = {**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = subprocess.run([HLBT, "--show-completion", shell], capture_output=True, text=True, check=False, env=named)
    assert done.returncode == 0, done.stderr
    assert "_HLBT_COMPLETE" in done.stdout and f"complete_{shell}" in done.stdout


def test_completion_gives_the_words() -> None:
    environment = {**os.environ, "_HLBT_COMPLETE": "complete_bash", "COMP_WORDS": "hlbt data ", "COMP_CWORD": "2"}
    done = subprocess.run([HLBT], capture_output=True, text=True, check=False, env=environment)
    assert set(done.stdout.split()) == {words[1] for words in COMMANDS if words[0] == "data"}, done.stderr


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        ("backtest --oracle research.oracles.mom", {"research.oracles.momentum:Momentum"}),
        ("backtest --oracle min", {"mine.py:Mine"}),
        ("oracle check --oracle research.oracles.equ", {"research.oracles.equal_weight:EqualWeight"}),
        ("report mo", {"momentum-1", "momentum-2"}),
        ("backtest --set costs.ta", {"costs.taker_bps="}),
        ("backtest --oracle research.oracles.momentum:Momentum --param lo", {"lookback_hours="}),
        ("backtest --oracle nowhere:Nothing --param lo", set()),
        ("backtest --param inner=research.oracles.mom", {"inner=research.oracles.momentum:Momentum"}),
        ("backtest --param oracles=mine.py:Mine,min", {"oracles=mine.py:Mine,mine.py:Mine"}),
        ("sweep --oracle research.oracles.momentum:Momentum --grid lo", {"lookback_hours="}),
        ("sweep --grid costs.ta", {"costs.taker_bps="}),
        ("sweep --grid data.", set()),
    ],
)
def test_completion_knows_oracles_runs_and_settings(typed: str, wanted: set[str], tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("class Mine(Oracle):\n    pass\n\n\nclass Plain:\n    pass\n")
    for folder, record in (("momentum-1", "run.json"), ("momentum-2", "sweep.json"), (".torn", "run.json")):
        (tmp_path / "reports" / folder).mkdir(parents=True)
        (tmp_path / "reports" / folder / record).write_text("{}")
    words = f"hlbt {typed}"
    asked = {**os.environ, "_HLBT_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": words}
    done = subprocess.run([HLBT], capture_output=True, text=True, check=False, env=asked, cwd=tmp_path)
    assert set(re.findall(r'"([^"]+)"', done.stdout.replace("\\", ""))) == wanted, done


def test_coins_of_the_cache_are_completed(sample_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HLBT_DATA_CACHE", str(sample_cache))
    assert complete_settings("data.coins=BTC,ET") == ["data.coins=BTC,ETH"]
    monkeypatch.setenv("HLBT_DATA_CACHE", "nowhere")
    assert complete_settings("data.coins=B") == []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a:B,c:D", ["a:B", "c:D"]),
        ('["a:B", "c:D"]', ["a:B", "c:D"]),
        ("[a:B, c:D]", ["a:B", "c:D"]),
        ("0.5,2", [0.5, 2]),
        ('"a,b"', "a,b"),
        ("top_bottom", "top_bottom"),
        ("72", 72),
        ("2024-01-01", date(2024, 1, 1)),
        ("", ""),
    ],
)
def test_a_parameter_may_be_a_list_like_every_other(text: str, value: object) -> None:
    assert parameters_of([f"k={text}"]) == {"k": value}


def test_the_first_page_of_help_is_in_order_of_use(hlbt: Hlbt) -> None:
    shown = re.findall(r"^│ (\w+) ", hlbt("--help").out, re.MULTILINE)
    assert set(TREE.commands) <= set(cli.ORDER)  # type: ignore[attr-defined]
    listed = [name for name in shown if name in cli.ORDER]
    assert listed == sorted(listed, key=cli.ORDER.index) and listed[0] == "demo"
    assert hlbt("--version") == (0, f"hlbt {version('hlbt')}\n", "")


@pytest.mark.parametrize(
    ("module", "finaliser"),
    [
        *((name, False) for name in ("engine.caches", "typer", "engine.commands.live", "pandas", "numba")),
        *((name, True) for name in ("engine.caches", "pandas")),
    ],
)
def test_ctrl_c_leaves_no_traceback_even_during_imports(module: str, finaliser: bool, tmp_path: Path) -> None:
    """The signal comes while `module` is imported, or in a finaliser then, where Python drops what it raises.

    What is read meanwhile ends only with the interrupt.
    """
    lines = [
        "import os, signal, sys",
        "class Dropped:",
        "    def __del__(self): signal.raise_signal(signal.SIGINT)",
        "class Import:",
        "    def find_spec(self, name, *_):",
        f"        if name == {module!r}:",
        f"            {'Dropped(); os.read(os.pipe()[0], 1)' if finaliser else 'signal.raise_signal(signal.SIGINT)'}",
        "sys.meta_path.insert(0, Import())",
        "sys.argv[0] = '/usr/bin/hlbt'",
        "from engine.__main__ import main",
        "main()",
    ]
    words = [sys.executable, "-c", "\n".join(lines), "doctor", "--base-url", "http://127.0.0.1:9"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=60.0)
    assert done.returncode == 130, done
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("hlbt: interrupted."), done.stderr
