"""The sweep page in a real browser: it draws, sorts, filters and switches, on a desktop and a telephone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.reporting.sweep_page import write_sweep_page
from engine.sweeps.study import Study
from helpers import studies_page as studies
from helpers.browser import Browser, overflow

pytestmark = pytest.mark.slow

LUCK = ("sharpes", "familywise", "null_books", "degradation", "logits")
STRESS = ("cost_stress", "delay_stress", "decision_hours", "start_dates", "plateau")
CHARTS = ("fan", "heat", *LUCK, *STRESS)
INK = "getComputedStyle(document.querySelector('figure:has(#fan) .keys button')).color"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    made = studies.study(tmp_path_factory.mktemp("reports") / "momentum")
    made.table.iloc[made.best(), made.table.columns.get_loc("volatility")] = np.nan
    write_sweep_page(made, studies.verdict(made), {made.best(): "../run/tearsheet.html"})
    return made


@pytest.fixture(scope="module")
def page(study: Study) -> Path:
    assert study.folder is not None
    return study.folder / "index.html"


def column(opened: Any, name: str) -> list[str]:
    """Texts of a column of the table, as shown."""
    names = opened.locator("#sets thead tr:first-child th").all_inner_texts()
    place = [text.rstrip(" ↑↓") for text in names].index(name)
    return [text.strip() for text in opened.locator(f"#sets tbody td:nth-child({place + 1})").all_inner_texts()]


def scrolled(opened: Any) -> None:
    """Bring every chart into view, for they are drawn when they are seen."""
    for name in CHARTS:
        if not opened.locator(f"#{name}").count():
            continue
        opened.locator(f"#{name}").scroll_into_view_if_needed()
        opened.wait_for_selector(f"#{name} :is(svg, .why)")


@pytest.mark.parametrize(("width", "dark"), [(1300, False), (390, True)])
def test_every_chart_is_drawn_without_an_error_and_nothing_is_wider_than_the_window(
    browser: Browser, page: Path, width: int, dark: bool
) -> None:
    with browser.opened(page, width, dark, touch=width < 500) as opened:
        scrolled(opened)
        for name in CHARTS:
            assert opened.locator(f"#{name} svg :is(path, rect, circle)").count() > 1, name
        assert overflow(opened) <= 0
        back = opened.evaluate("getComputedStyle(document.body).backgroundColor")
        ink = opened.evaluate(INK)
        assert (back, ink) == (
            ("rgb(20, 23, 27)", "rgb(227, 230, 234)") if dark else ("rgb(255, 255, 255)", "rgb(31, 35, 40)")
        )


def test_the_charts_follow_a_change_of_the_colour_scheme(browser: Browser, page: Path) -> None:
    with browser.opened(page) as opened:
        scrolled(opened)
        opened.emulate_media(color_scheme="dark")
        assert opened.evaluate(INK) == "rgb(227, 230, 234)"
        line = "getComputedStyle(document.querySelector('#fan g path:last-of-type')).stroke"
        assert opened.evaluate(line) == "rgb(242, 161, 84)"  # the winner's orange, of the night


def test_a_heading_sorts_by_number_and_by_word_and_back(browser: Browser, page: Path, study: Study) -> None:
    with browser.opened(page) as opened:
        opened.select_option("#size", "200")
        sharpe = study.table["sharpe"].dropna().to_numpy()
        figures = [float(text) for text in column(opened, "Sharpe") if text != "n/a"]
        assert figures == pytest.approx(np.sort(sharpe)[::-1], abs=0.00501)
        assert opened.locator("th[aria-sort=descending]").inner_text().startswith("Sharpe")

        heading = opened.get_by_role("button", name="lookback_hours", exact=True)
        heading.focus()
        opened.keyboard.press("Enter")  # the keyboard is enough
        # 720, 72 and 24 are in another order as words.
        assert column(opened, "lookback_hours") == [str(n) for n in (720, 336, 168, 72, 24) for _ in range(16)]
        heading.click()
        assert column(opened, "lookback_hours") == [str(n) for n in (24, 72, 168, 336, 720) for _ in range(16)]
        assert opened.locator("th[aria-sort=ascending]").count() == 1

        opened.get_by_role("button", name="weighting", exact=True).click()
        assert column(opened, "weighting") == ["equal"] * 40 + ["volatility"] * 40

        for falling in (True, False):
            opened.get_by_role("button", name="volatility", exact=True).click()
            shown = column(opened, "volatility")
            # What has no figure is last, whatever the direction: the three that failed and the best of all.
            assert shown[-4:] == ["n/a"] * 4
            figures = [float(text.rstrip("%")) for text in shown[:-4]]
            assert figures == sorted(figures, reverse=falling)
        opened.get_by_role("button", name="set", exact=True).click()
        assert [text.split()[0] for text in column(opened, "set")] == [str(place) for place in range(80)]


def test_filters_read_bounds_ranges_percent_and_words(browser: Browser, page: Path, study: Study) -> None:
    table = study.table.reset_index()
    failed = study.table["error"].to_numpy() != ""

    def count(opened: Any) -> int:
        return int(opened.locator("#sets tbody tr").count())

    with browser.opened(page) as opened:
        opened.select_option("#size", "200")

        def type_in(name: str, text: str) -> int:
            opened.get_by_label(f"Filter {name}", exact=True).fill(text)
            return count(opened)

        for typed, kept in (
            (">0.2", table["sharpe"] > 0.2),
            (">= -1 <0.2", (table["sharpe"] >= -1) & (table["sharpe"] < 0.2)),
            ("-1..0.5", table["sharpe"].between(-1, 0.5)),
            ("n/a", table["sharpe"].isna()),
        ):
            assert type_in("Sharpe", typed) == kept.sum() > 0, typed
        assert type_in("Sharpe", "") == 80
        for typed in ("<-0.2", ">x", "1..", "abc", "1.2.3"):
            type_in("Sharpe", typed)
            wrong = opened.get_by_label("Filter Sharpe", exact=True).get_attribute("aria-invalid")
            assert wrong == ("false" if typed == "<-0.2" else "true"), typed
        assert count(opened) == 80  # what cannot be read filters nothing
        type_in("Sharpe", "")
        # Percent columns are asked in percent, as they are shown.
        assert type_in("drawdown", "<-40") == (table["max_drawdown"] < -0.4).sum() > 0
        assert type_in("drawdown", "<-40%") == (table["max_drawdown"] < -0.4).sum()
        type_in("drawdown", "")
        assert type_in("execution.no_trade_band_frac", "0.01") == 40
        assert type_in("lookback_hours", "72") == 8  # and not 720
        opened.get_by_role("button", name="clear filters").click()
        assert count(opened) == 80
        assert type_in("weighting", "VOLA") == 40
        assert type_in("weighting", "!vola") == 40
        assert type_in("weighting", "=equal") == 40
        assert type_in("weighting", "=equ") == 0
        assert type_in("weighting", "") == 80
        assert type_in("error", "OracleError") == failed.sum() == 3
        assert all("tradable" in text for text in column(opened, "error"))


def test_a_row_shows_its_curve_and_all_its_figures(browser: Browser, page: Path, study: Study) -> None:
    names = "Array.from(document.querySelectorAll('figure:has(#fan) .keys button'), (key) => key.textContent)"
    with browser.opened(page) as opened:
        scrolled(opened)
        before = opened.evaluate(names)
        assert {"winner", "walk-forward, anchored", "walk-forward, rolling", "90% of sets"} <= set(before)
        place = int(column(opened, "set")[2].split()[0])
        opened.locator("#sets tbody tr").nth(2).locator("td").nth(3).click()
        assert opened.evaluate(names) == [*before, f"set {place}"]
        last = opened.evaluate("Array.from(document.getElementById('fan').plot.spec.marks.at(-1).y).at(-1)")
        assert study.daily_returns is not None
        assert last == pytest.approx(float((1.0 + study.daily_returns.to_numpy()[:, place]).prod()), rel=1e-6)
        opened.evaluate("document.getElementById('detail').scrollIntoView()")
        assert f"Set {place}" in opened.locator("#detail").inner_text()
        assert f"{study.table['fee_usd'].iloc[place]:,.0f}" in opened.locator("#detail").inner_text()
        opened.locator("#sets tbody tr").nth(2).locator("button").click()  # and again: no longer
        assert opened.evaluate(names) == before
        assert not opened.locator("#detail").is_visible()
        lines = "Array.from(document.querySelectorAll('#fan .tick'), (tick) => Number(tick.textContent))"
        even = [value for value in opened.evaluate(lines) if value is not None]
        opened.check("#log")
        assert opened.evaluate(lines) != even


def middle(opened: Any, name: str) -> tuple[float, float]:
    """The middle of a chart, brought into view."""
    opened.locator(f"#{name}").scroll_into_view_if_needed()
    box = opened.locator(f"#{name} svg").bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_every_chart_tells_its_values_enlarges_and_hides(browser: Browser, page: Path, study: Study) -> None:
    assert study.daily_returns is not None
    with browser.opened(page) as opened:
        scrolled(opened)
        for name in CHARTS:
            x, y = middle(opened, name)
            # A scatter speaks of the dot under the pointer, any other chart wherever the pointer is.
            dot = opened.locator(f"#{name} circle").first.bounding_box() if name == "degradation" else None
            opened.mouse.move(*((dot["x"] + 2, dot["y"] + 2) if dot else (x, y)))
            assert any(letter.isdigit() for letter in opened.inner_text(".hlbt-tip")), name
        opened.mouse.move(1, 1)
        assert not opened.locator(".hlbt-tip").is_visible()

        x, y = middle(opened, "fan")
        opened.mouse.move(x, y)
        day, *values = opened.inner_text(".hlbt-tip").split("\n")
        winner = (1.0 + study.daily_returns.iloc[:, study.best()]).cumprod().loc[day]
        assert f"winner {winner:.3f}" in values
        span = "document.getElementById('fan').plot.x"
        whole = opened.evaluate(f"[{span}.low, {span}.high]")
        opened.mouse.down()
        opened.mouse.move(x + 100, y + 3, steps=3)
        opened.mouse.up()
        part = opened.evaluate(f"[{span}.low, {span}.high]")
        assert whole[0] < part[0] < part[1] < whole[1]
        opened.mouse.dblclick(x, y)
        assert opened.evaluate(f"[{span}.low, {span}.high]") == whole

        lines = opened.locator("#fan g path").count()
        key = opened.locator("figure:has(#fan) .keys button", has_text="median set")
        key.click()
        assert opened.locator("#fan g path").count() == lines - 1 and key.get_attribute("aria-pressed") == "false"
        key.click()
        assert opened.locator("#fan g path").count() == lines


def test_the_heat_map_follows_its_selects(browser: Browser, page: Path, study: Study) -> None:
    frame = study.table.reset_index()

    def shown(opened: Any) -> np.ndarray:
        return np.array(opened.evaluate("document.getElementById('heat').plot.spec.cells.values"), dtype=float)

    with browser.opened(page) as opened:
        scrolled(opened)
        expected = frame.pivot_table(index="n", columns="lookback_hours", values="sharpe", aggfunc="median")
        np.testing.assert_allclose(shown(opened), expected.to_numpy(), rtol=1e-6)
        opened.select_option("#across", label="execution.no_trade_band_frac")
        opened.select_option("#up", label="lookback_hours")
        opened.select_option("#metric", label="drawdown")
        pair = {"index": "lookback_hours", "columns": "execution.no_trade_band_frac"}
        expected = frame.pivot_table(**pair, values="max_drawdown", aggfunc="median")
        np.testing.assert_allclose(shown(opened), expected.to_numpy(), rtol=1e-6)
        assert "drawdown by execution.no_trade_band_frac and lookback_hours" in opened.inner_text("figure:has(#heat)")
        opened.select_option("#others", "best")
        best = frame.loc[frame.groupby(list(pair.values()))["sharpe"].idxmax()]
        expected = best.pivot_table(**pair, values="max_drawdown")
        np.testing.assert_allclose(shown(opened), expected.to_numpy(), rtol=1e-6)
        opened.select_option("#others", "fixed")
        winner = study.params(study.best())
        same = frame[(frame["n"] == winner["n"]) & (frame["weighting"] == winner["weighting"])]
        expected = same.pivot_table(**pair, values="max_drawdown")
        np.testing.assert_allclose(shown(opened), expected.to_numpy(), rtol=1e-6)
        at = opened.evaluate("document.getElementById('heat').plot.spec.cells.chosen")
        assert at[0] == [0.0, 0.01].index(winner["execution.no_trade_band_frac"])
        assert at[1] == [24, 72, 168, 336, 720].index(winner["lookback_hours"])
        # The outline is on the winner's cell, and the cell says what it is.
        opened.locator("#heat .chosencell").hover(force=True)
        drawdown = f"{100 * study.table['max_drawdown'].iloc[study.best()]:.2f}%"
        said = opened.inner_text(".hlbt-tip")
        assert drawdown in said and f"lookback_hours = {winner['lookback_hours']}" in said and said.endswith(" sets")
        opened.select_option("#up", label="execution.no_trade_band_frac")  # the same twice: they change places
        assert opened.input_value("#across") == "0"
        opened.select_option("#up", label="nothing: a line")
        opened.select_option("#across", label="weighting")
        opened.select_option("#others", "median")
        line = opened.evaluate("document.getElementById('heat').plot.spec.marks[0].y")
        assert line == pytest.approx(frame.groupby("weighting")["max_drawdown"].median().tolist(), rel=1e-6)


@pytest.mark.parametrize("case", ["no returns", "one set", "all failed", "nasty", "whys"])
def test_what_is_missing_breaks_nothing(browser: Browser, tmp_path: Path, case: str) -> None:
    nasty = '</script><script>document.title="broken"</script><img src=x onerror=alert(1)>'
    grids: dict[str, Any] = {
        "one set": {"n": [3]},
        "nasty": {f"x{nasty}": [nasty, True, None, 1, "1", 2.5], "pair": [[1, 2], [3, 4]], "name": ["a", "b"]},
    }
    failed = {"all failed": 80, "nasty": 2}.get(case, 0)
    made = studies.study(tmp_path / "case", grids.get(case), failed=failed, returns=case != "no returns")
    whys = {"why": f"Too few days. {nasty}"}
    verdict: dict[str, Any] | None = None
    if case == "nasty":
        verdict = studies.verdict(made)
        verdict["says"] = verdict["checks"][0]["says"] = nasty
    if case == "whys":
        verdict = {"study": "case", "passed": False, "says": "No.", "checks": [], "details": {}}
        verdict["details"] = dict.fromkeys(studies.verdict(made)["details"], whys)
    with browser.opened(write_sweep_page(made, verdict), 390) as opened:
        scrolled(opened)
        assert opened.title().startswith("Sweep case")
        assert overflow(opened) <= 0
        assert opened.locator("#sets tbody tr").count() == min(len(made), 15)
        there = [name for name in CHARTS if opened.locator(f"#{name}").count()]
        fan = ["fan"] if case not in ("no returns", "all failed") else []
        assert there == [*fan, "heat", "sharpes", *(CHARTS[3:] if verdict else [])]
        if case == "all failed":
            assert "No set has a Sharpe ratio" in opened.inner_text("main")
        if case == "whys":
            assert opened.locator(".why").count() == 9 and nasty in opened.inner_text("#logits")
        if case == "nasty":
            assert opened.inner_text(".verdict h2") == f"LUCK CANNOT BE EXCLUDED YET {nasty}"
            labels = opened.locator("#heat .tick[text-anchor=end]").all_text_contents()
            assert labels == ["(1, 2)", "(3, 4)"]
            opened.select_option("#up", index=0)
            opened.select_option("#across", index=2)
            labels = opened.locator("#heat .tick[text-anchor=end]").all_text_contents()
            assert labels[1:] == ["true", "not set", "1", '"1"', "2.5"]


def test_ten_thousand_sets_stay_quick(browser: Browser, tmp_path: Path) -> None:
    grid = {"a": list(range(25)), "b": list(range(20)), "c": list(range(20))}
    made = studies.study(tmp_path / "big", grid, days=250)
    write_sweep_page(made, studies.verdict(made))
    assert made.folder is not None
    with browser.opened(made.folder / "index.html") as opened:
        paint = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
        opened.wait_for_function(f"performance.getEntriesByName('first-contentful-paint').length && {paint} > 0")
        first = opened.evaluate(paint)
        took = opened.evaluate(
            """() => {
              const heading = document.querySelector("#sets th[data-column] button");
              return Math.min(...[1, 2, 3].map(() => {
                const start = performance.now();
                heading.click();
                return performance.now() - start;
              }));
            }"""
        )
        assert "1 to 15 of 10,000 sets" in opened.inner_text("#count")
        opened.get_by_label("Filter a", exact=True).fill("24")
        assert "1 to 15 of 400 sets, of 10,000" in opened.inner_text("#count")
        # An idle machine takes 0.1 s and 0.01 s; a machine of tests is not idle: far bounds, and the best counts.
        assert first < 20_000 and took < 1_000
