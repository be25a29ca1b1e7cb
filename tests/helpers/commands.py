"""Running a command of hlbt in the process of the test, as ``hlbt ...`` would in one of its own."""

from __future__ import annotations

import json
import sys
from functools import cache
from typing import Any, NamedTuple, Protocol

import pytest
import typer.main

from engine import cli

# A process of a user builds the commands once and runs one of them; those of the tests run hundreds.
typer.main.get_command = cache(typer.main.get_command)

#: The port of discard, where nothing listens; a free port that was asked for may meanwhile be another test's.
NOBODY = "http://127.0.0.1:9"


class Outcome(NamedTuple):
    """What a command left: exit code, standard output, standard error."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What ``--json`` printed."""
        return json.loads(self.out)


class Hlbt(Protocol):
    """The fixture `hlbt` of conftest.py."""

    def __call__(self, *words: object) -> Outcome: ...


def exit_code(*words: object) -> int:
    """Run a command; its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["hlbt", *map(str, words)])
        try:
            cli.main()
        except SystemExit as left:
            return int(left.code or 0)
    return 0


def outcome(capsys: pytest.CaptureFixture[str], *words: object) -> Outcome:
    """Run a command; none may end in a traceback."""
    code = exit_code(*words)
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return Outcome(code, captured.out, captured.err)
