"""The arithmetic that a page of the manual shows is right."""

from __future__ import annotations

import re

from helpers.project import ROOT

#: A sum in code letters that ends in its value, perhaps by way of another sum.
SUM = re.compile(r"`([-+*/(). \d,]*\d[-+*/(). \d,=]*= -?[\d,.]+)`")


def test_one_hour_adds_up() -> None:
    text = (ROOT / "docs" / "concepts" / "one-hour.md").read_text(encoding="utf-8").replace("\n", " ")
    sums = SUM.findall(text)
    assert len(sums) >= 10
    for written in sums:
        *terms, shown = written.replace(",", "").split(" = ")
        unit = 10.0 ** -len(shown.partition(".")[2])
        for term in terms:
            assert abs(eval(term) - float(shown)) <= 0.51 * unit, written
