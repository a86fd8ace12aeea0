"""The page of a run in a browser, with words, names and numbers that are not the usual ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pmlm_env.core.traces import Trace
from tests.agents.report.page_runs import make_patients, traces_of, write_run
from tests.commands import pmlm

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.once


def _opened(browser: Browser, folder: Path, traces: Sequence[Trace], **models: Any) -> Page:
    """The page of some traces of two patients on a phone."""
    run = write_run(folder, make_patients(2), traces, **models)
    assert pmlm("report", "--run", run) == 0
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto((run / "report.html").as_uri())
    return page


def test_long_words_and_names_break_instead_of_widening_the_page(browser: Browser, tmp_path: Path) -> None:
    long = "pregnancy_complicated_with_hypothyroidism_" * 4
    traces = [
        replace(trace, patient_id=f"{trace.patient_id}-{long}", words=(long, *trace.words[1:]), label=long,
                predicted=long, reference=long, peers=tuple(replace(peer, label=long) for peer in trace.peers))
        for trace in traces_of(make_patients(2))
    ]  # fmt: skip
    page = _opened(browser, tmp_path / "long", traces)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("document.querySelector('#list').scrollWidth <= document.querySelector('#list').clientWidth")
    page.close()


def test_texts_that_are_written_from_right_to_left_are_shown_so(browser: Browser, tmp_path: Path) -> None:
    hebrew = "אבחנה בשחרור: אנמיה."
    traces = [
        replace(trace, words=(*hebrew.split(), *trace.words[3:]), reference=hebrew,
                replies=(replace(trace.replies[0], text=hebrew),))
        for trace in traces_of(make_patients(2), slots=2)
    ]  # fmt: skip
    page = _opened(browser, tmp_path / "hebrew", traces)
    first, second = (page.locator(f'#prompt [data-slot="{slot}"]').bounding_box() for slot in (0, 1))
    assert first is not None
    assert second is not None
    assert first["x"] > second["x"]
    for text in page.locator(".panel p").all():
        assert text.evaluate("element => getComputedStyle(element).direction") == "rtl"
    page.locator('#prompt [data-slot="0"]').press("ArrowLeft")
    assert page.evaluate("document.activeElement.dataset.slot") == "1"
    page.close()


def test_changes_of_a_reward_of_its_own_unit_have_four_decimal_places(browser: Browser, tmp_path: Path) -> None:
    traces = [
        replace(trace, before={**trace.before, "reward": 0.001}, after={**trace.after, "reward": 0.0022}, reward=0.0012,
                edits=tuple(replace(edit, probability=1.0) for edit in trace.edits))
        for trace in traces_of(make_patients(2))
    ]  # fmt: skip
    page = _opened(browser, tmp_path / "own", traces, reward="somewhere:Reward")
    assert "▲ +0.0012" in page.locator("#list li").first.inner_text()
    assert "▲ +0.0012 of the reward" in page.locator("#detail .head").inner_text()
    assert "with probability 100 %" in str(page.locator('#prompt [aria-pressed="true"]').first.get_attribute("title"))
    page.close()
