"""The page of a run in a browser: headless Chromium, from disk."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.agents.report.page_runs import keep_reply, make_patients, traces_of, write_run
from tests.commands import pmlm

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.once


#: Becomes markup, or runs, wherever a page takes text for markup.
EVIL = "</script><script>hacked = 1</script><img src='http://127.0.0.1:9/' onerror='hacked = 1'>"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of six patients; the agent deletes the words in slots 1 and 2."""
    patients = make_patients(6)
    run = write_run(tmp_path_factory.mktemp("page") / "mine", patients, traces_of(patients, slots=2))
    without_two = " ".join((patients[0].words[0], *patients[0].words[3:5], *patients[0].words[6:]))
    keep_reply(run, without_two, "Kept: thalassemia.")
    assert pmlm("report", "--run", run) == 0
    return run / "report.html"


@pytest.fixture
def page(browser: Browser, file: Path) -> Iterator[Page]:
    """The page of ``file``, opened anew; it may neither ask for anything nor complain."""
    page = browser.new_page(viewport={"width": 1300, "height": 900}, color_scheme="light")
    requests: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(file.as_uri())
    yield page
    assert (requests, complaints) == ([file.as_uri()], [])
    page.close()


def _ids(page: Page) -> list[str]:
    return page.locator("#list .id").all_text_contents()


def _chosen(page: Page) -> str:
    return page.locator("#detail h2").inner_text()


def _slot(page: Page, slot: int) -> None:
    page.locator(f'#prompt [data-slot="{slot}"]').click()


def _panels(page: Page) -> dict[str, str]:
    """The texts of replies, by their titles."""
    panels = page.locator(".panel").all()
    return {panel.locator("h4").inner_text(): panel.locator("p").first.inner_text() for panel in panels}


def test_the_patient_whose_score_fell_most_is_open_first(page: Page) -> None:
    assert _ids(page) == ["P1", "P3", "P5", "P0", "P2", "P4"]
    assert _chosen(page) == "P1"
    assert "▼ -0.98 points of F1" in page.locator("#detail .head").inner_text()


def test_deleted_words_are_struck_out_with_their_order_and_probability(page: Page) -> None:
    struck = page.locator('#prompt [aria-pressed="true"]')
    assert struck.all_inner_texts() == ["pregnant1", "woman2"]
    assert "line-through" in struck.first.evaluate("element => getComputedStyle(element).textDecorationLine")
    struck.nth(1).hover()
    told = page.locator("#info").inner_text()
    assert "position 3, background" in told
    assert "deleted 2nd, with probability 25 %" in told
    assert struck.nth(1).get_attribute("title") in told


def test_replies_stand_beside_the_doctors_with_their_common_words_marked(page: Page) -> None:
    texts = _panels(page)
    assert list(texts) == ["Reply to the untouched prompt", "Reply after the edits: agent", "The doctor's reply"]
    after = page.locator(".panel.now")
    assert "examination" in after.locator("mark").all_text_contents()
    assert "Advice" not in after.locator("mark").all_text_contents()
    assert "✓ right: thalassemia" in after.inner_text()


def test_a_wrong_condition_is_named_as_wrong(page: Page) -> None:
    """The prediction for P0 is wrong, and so is the reply to the untouched prompt."""
    page.locator("#list li", has_text="P0").click()
    first = page.locator(".panel").first.inner_text()
    assert "✗ wrong: thalassemia" in first
    assert "right condition not named" in first
    assert "predicted thalassemia ✗ wrong" in page.locator(".facts").inner_text()


def test_words_put_back_show_the_kept_reply_and_its_score(page: Page) -> None:
    _slot(page, 1)
    assert "Not asked." in page.locator("#state").inner_text()
    assert "Reply after the edits: agent" not in _panels(page)
    _slot(page, 2)
    assert "the prompt of “untouched prompt”, 0 words deleted" in page.locator("#state").inner_text()
    assert page.locator("#components tbody tr").first.locator("td").nth(1).inner_text() == "60.00"


def test_a_word_ticked_off_says_that_nobody_asked_and_what_is_near(page: Page) -> None:
    _slot(page, 8)
    state = page.locator("#state")
    assert "Not asked. The run has no reply to this prompt (3 words deleted)." in state.inner_text()
    assert page.locator("#components tbody tr").first.locator("td").nth(1).inner_text() == "-"
    state.get_by_role("button", name="agent, 1 word away").click()
    assert "the prompt of “agent”, 2 words deleted" in state.inner_text()


def test_a_reply_in_the_cache_is_found_by_its_prompt(page: Page) -> None:
    page.locator("#list li", has_text="P0").click()
    _slot(page, 5)
    assert "Kept reply without a score" in page.locator("#state").inner_text()
    assert _panels(page)["Kept reply"] == "Kept: thalassemia."


def test_a_control_shows_its_reply(page: Page) -> None:
    page.locator('[data-variant="echo"]').click()
    assert "needs no prompt" in page.locator("#state").inner_text()
    assert _panels(page)["Control: echo"].startswith("echo: Diagnosis at discharge")


def test_search_finds_ids_conditions_prompts_and_replies(page: Page) -> None:
    search = page.locator("#search")
    expected = {"p4": ["P4"], "UTERINE scar": ["P1", "P5", "P2", "P4"], "4 weeks": ["P4"], "zzz": []}
    for wanted, found in expected.items():
        search.fill(wanted)
        assert _ids(page) == found, wanted
    assert page.locator("#count").inner_text() == "0 of 6 patients"


def test_conditions_and_outcomes_are_filters(page: Page) -> None:
    page.locator("#condition").select_option("thalassemia")
    assert _ids(page) == ["P1", "P4"]
    page.locator("#outcome").select_option("right condition gained")
    assert _ids(page) == ["P4"]
    page.locator("#condition").select_option("")
    assert _ids(page) == ["P0", "P4"]
    page.locator("#outcome").select_option("score fell")
    assert _ids(page) == ["P1", "P3", "P5"]


def test_the_list_is_sorted_by_what_is_chosen(page: Page) -> None:
    for order, found in (
        ("largest rise", ["P4", "P2", "P0", "P5", "P3", "P1"]),
        ("id", ["P0", "P1", "P2", "P3", "P4", "P5"]),
        ("condition", ["P0", "P3", "P1", "P4", "P2", "P5"]),
    ):
        page.locator("#sort").select_option(order)
        assert _ids(page) == found, order


def test_the_effect_of_another_variant_can_be_shown(page: Page) -> None:
    page.locator("#system").select_option("random")
    assert page.locator("#list .delta").first.inner_text().startswith("▼ -2.00")
    assert "the prompt of “random deletion”" in page.locator("#state").inner_text()


def test_keys_move_search_and_compare(page: Page) -> None:
    page.keyboard.press("j")
    page.keyboard.press("j")
    assert _chosen(page) == "P5"
    page.keyboard.press("k")
    assert _chosen(page) == "P3"
    page.keyboard.press("u")
    assert "untouched prompt" in page.locator("#state").inner_text()
    page.keyboard.press("a")
    assert "“agent”" in page.locator("#state").inner_text()
    page.keyboard.press("/")
    page.keyboard.type("jak")
    assert _ids(page) == []
    page.keyboard.press("Escape")
    assert len(_ids(page)) == 6
    page.keyboard.press("/")
    page.keyboard.type("P4")
    page.locator("#list").focus()
    page.keyboard.press("Escape")
    assert len(_ids(page)) == 6
    page.locator("#list").focus()
    page.keyboard.press("ArrowDown")
    assert _chosen(page) == "P5"
    page.locator('#prompt [data-slot="0"]').focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    assert page.locator('#prompt [data-slot="1"]').get_attribute("aria-pressed") == "false"


def test_an_address_with_a_patient_opens_the_patient(browser: Browser, file: Path) -> None:
    page = browser.new_page()
    page.goto(f"{file.as_uri()}#patient=P4")
    assert _chosen(page) == "P4"
    page.keyboard.press("k")
    assert page.url.endswith("#patient=P2")
    page.close()


@pytest.mark.parametrize("address", ["2021/131, B+1", "2021%2F131%2C%20B%2B1"])
def test_an_identifier_may_have_any_character_in_an_address(
    address: str, browser: Browser, tmp_path: Path, file: Path
) -> None:
    other = tmp_path / "other.html"
    other.write_text(file.read_text(encoding="utf-8").replace('"P4"', '"2021/131, B+1"'), encoding="utf-8")
    page = browser.new_page()
    page.goto(f"{other.as_uri()}#patient={address}")
    assert _chosen(page) == "2021/131, B+1"
    page.close()


def test_tables_are_sorted_by_a_click_or_a_key(page: Page) -> None:
    head = page.locator("#variants th", has_text="change")
    head.click()
    names = page.locator("#variants tbody th").all_text_contents()
    assert names[0] in ("echo", "facts", "label", "random-letter", "fixed-letter", "peer-letter", "label-letter")
    assert names[-1] == "random deletion"
    head.focus()
    page.keyboard.press("Enter")
    assert page.locator("#variants tbody th").first.inner_text() == "random deletion"
    assert head.get_attribute("aria-sort") == "ascending"


def _background(page: Page) -> str:
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


def test_light_and_dark_follow_the_system_and_can_be_switched(page: Page) -> None:
    light = _background(page)
    page.emulate_media(color_scheme="dark")
    dark = _background(page)
    assert dark != light
    page.locator("#theme").click()
    assert _background(page) == light
    page.locator("#theme").click()
    assert _background(page) == dark


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_light_and_dark(page: Page, scheme: str) -> None:
    """WCAG 2.2, 1.4.3: a contrast of 4.5 : 1, measured as the browser draws it."""
    page.emulate_media(color_scheme=scheme)
    contrasts = page.evaluate(_CONTRASTS)
    assert {what: round(value, 2) for what, value in contrasts.items() if value < 4.5} == {}
    assert len(contrasts) > 10


#: The contrast of each kind of text with what is behind it.
_CONTRASTS = """() => {
  const element = Object.assign(document.createElement("canvas"), {width: 1, height: 1});
  const canvas = element.getContext("2d", {willReadFrequently: true});
  const rgb = (color) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = (color) => rgb(color).slice(0, 3).map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const color = getComputedStyle(e).backgroundColor;
      if (rgb(color)[3] === 255) return color;
    }
  };
  const found = {};
  const kinds = "h1,.lead,.conclusion,.what,.ci,.verdict,td,th,figcaption,.id,.label,.delta,.facts,.word,mark,.chip,"
      + ".info,.state,button,dt,dd,.meta,.plot text";
  for (const e of document.querySelectorAll(kinds)) {
    const style = getComputedStyle(e);
    const color = e.matches("text") ? style.fill : style.color;
    const [a, b] = [light(color), light(behind(e))].sort((x, y) => y - x);
    const what = `${e.tagName} ${e.getAttribute("class") ?? ""} ${color}`;
    found[what] = Math.min(found[what] ?? 21, (a + 0.05) / (b + 0.05));
  }
  return found;
}"""


def test_in_print_the_patient_stands_without_list_and_buttons(page: Page) -> None:
    page.emulate_media(media="print", color_scheme="dark")
    assert page.locator("#detail h2").is_visible()
    assert page.locator("#prompt").is_visible()
    for part in ("#list", ".top", ".variants"):
        assert not page.locator(part).is_visible(), part
    assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "light"


def test_on_a_phone_nothing_is_wider_than_the_screen(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_texts_of_others_stay_texts(browser: Browser, tmp_path: Path) -> None:
    patients = make_patients(2)
    traces = [
        replace(
            trace,
            patient_id=f"{trace.patient_id} {EVIL}",
            words=("<img/src=x/onerror=hacked=1>", *trace.words[1:]),
            label=EVIL,
            predicted=EVIL,
            reference=EVIL,
            replies=(replace(trace.replies[0], text=f"{trace.variant} {EVIL}"),),
        )
        for trace in traces_of(patients)
    ]
    run = write_run(tmp_path / "evil", patients, traces)
    assert pmlm("report", "--run", run) == 0
    page = browser.new_page()
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto((run / "report.html").as_uri())
    for variant in ("keep_all", "random", "echo", "agent"):
        page.locator(f'[data-variant="{variant}"]').click()
        assert f"{variant} {EVIL}" in _panels(page).values()
    page.locator("#prompt button").first.hover()
    assert EVIL in page.locator(".facts").inner_text()
    assert EVIL in _chosen(page)
    assert page.evaluate("window.hacked") is None
    assert page.locator("img").count() == 0
    assert requests == [page.url.partition("#")[0]]
    page.close()


def test_scripts_and_requests_that_are_not_the_pages_own_are_refused(browser: Browser, file: Path) -> None:
    """What the policy is for: a fault in the page would still run nothing, and send nothing."""
    asked: list[str] = []

    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page = browser.new_page()
    page.goto(file.as_uri())
    address = f"http://127.0.0.1:{server.server_port}"
    page.evaluate(
        """async (address) => {
          const script = document.createElement("script");
          script.textContent = "hacked = 1";
          document.body.append(script);
          document.body.insertAdjacentHTML("beforeend", `<img src="${address}/img" onerror="hacked = 1">`);
          await fetch(`${address}/fetch`).catch(() => null);
        }""",
        address,
    )
    page.wait_for_timeout(200)
    assert page.evaluate("window.hacked") is None
    assert asked == []
    page.close()
    server.shutdown()
    server.server_close()
