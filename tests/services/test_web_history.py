"""History, an event's page and Settings in headless Chromium: filters, marks, clips, losses."""

import contextlib
import time

import pytest

pytest.importorskip("uvicorn")

from streamtwl.clips.moments import Moments, write_clip
from streamtwl.messages import Event
from streamtwl.services.web import settings
from tests.services.web import HOP, SESSION, Story, serving

pytestmark = pytest.mark.slow
DOG = f"{SESSION}-kitchen-0"
LONG = "W" * 60
ROWS = "document.querySelectorAll('.events tbody tr')"
CELLS = "document.querySelectorAll('.heat button')"
TEXT = "document.querySelector('main').innerText"
CLIP = b"fLaC" + bytes(1000)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A dog with a clip that was revised, 29 other labels, and a second source."""
    folder = tmp_path_factory.mktemp("history")
    with serving(folder) as one:
        one.story.hello()
        one.story.event(0, "onset", 10 * HOP, None, "Dog")
        one.story.event(0, "offset", 10 * HOP, 14 * HOP, "Dog")
        for number in range(1, 29):
            one.story.event(number, "onset", (20 + number) * HOP, None, f"Label {number:02}")
            one.story.event(
                number, "offset", (20 + number) * HOP, (21 + number) * HOP, f"Label {number:02}"
            )
        attic = Story(one.story._publisher, one.journal, "attic")
        attic.event(0, "onset", 55 * HOP, None, "Cat")
        attic.event(0, "offset", 55 * HOP, 56 * HOP, "Cat")
        for hop in range(1, 60):
            one.story.hop(hop * HOP, "Dog", 0.5)
        one.story.level(50 * HOP)
        one.told()
        one.wait(lambda: one.get("/api/events")[1].get("total") == 30)
        write_clip(folder / "clip.flac", CLIP)
        with contextlib.closing(Moments(one.journal)) as moments:
            dog = Event(
                source="kitchen", session=SESSION, seq=1, position=0, captured_at=None,
                published_at=time.time(), id=DOG, phase="offset", label="Dog", start=0, end=1,
                peak=0.8, mean=0.6,
            )  # fmt: skip
            moments.add(dog, 0.0, folder / "clip.flac", {})
        yield one


@pytest.fixture
def page(browser, served, tmp_path, monkeypatch):
    """Open a view, and wait until it is there."""
    monkeypatch.setenv("STREAMTWL_DATA", str(tmp_path))
    browser.look()
    browser.open(served.web.link)

    def open_view(view: str) -> None:
        browser.open("about:blank")
        browser.open(f"{served.web.address}/{view}")
        browser.wait("document.querySelector('main[data-ready]')")

    return open_view


def test_filters_are_in_the_address_and_survive_the_way_back(page, browser):
    page("history?period=day&label=Do")
    browser.wait(f"{ROWS}.length === 1")
    assert browser.run("document.querySelector('[data-period=day]').ariaPressed") == "true"
    browser.run(f"{CELLS}[0].click()")
    browser.wait("location.search.includes('sound=Dog') && location.search.includes('at=')")
    before = browser.run("location.search")
    browser.wait("document.querySelectorAll('.heat [aria-pressed=true]').length === 1")
    browser.wait(f"{ROWS}.length === 1")
    browser.run("document.querySelector('.events .label a').click()")
    browser.wait("document.querySelector('#marks')")
    assert browser.run("document.querySelector('.ways a').getAttribute('href')").endswith(before)
    browser.run("history.back()")
    browser.wait(f"location.pathname === '/history' && {CELLS}.length && {ROWS}.length === 1")
    assert browser.run("location.search") == before
    assert browser.run("document.querySelectorAll('.heat [aria-pressed=true]').length") == 1
    assert browser.run("document.querySelector('input[type=search]').value") == "Do"


def test_source_and_day_are_chosen(page, browser):
    page("history")
    browser.wait(f"{ROWS}.length === 30")
    choose = "e.dispatchEvent(new Event('change'))"
    browser.run(f"(e => {{ e.value = 'attic'; {choose} }})(document.querySelector('select'))")
    browser.wait(f"{ROWS}.length === 1 && {CELLS}.length === 1")
    assert browser.run("location.search") == "?source=attic"
    day = "document.querySelector('input[type=date]')"
    browser.run(f"(e => {{ e.value = '2020-02-29'; {choose} }})({day})")
    browser.wait(f"{ROWS}.length === 0 && {TEXT}.includes('on that day')")
    assert browser.run("location.search") == "?source=attic&day=2020-02-29"
    page("history?day=2020-02-30&offset=x&at=y")  # as somebody might write
    browser.wait(f"{ROWS}.length === 30")


def test_what_is_cut_off_is_said_and_a_search_finds_it(page, browser):
    page("history")
    browser.wait(f"{TEXT}.includes('24 of 30 labels: search for others')")
    search = "document.querySelector('input[type=search]')"
    for typed, rows in (("label 2", 9), ("purr", 0)):
        browser.run(f"{search}.value = {typed!r}; {search}.dispatchEvent(new Event('input'))")
        browser.wait(f"{ROWS}.length === {rows} && {CELLS}.length === {rows}")
    browser.wait(f"{TEXT}.includes('No such label in the last day')")


def test_what_fails_is_said_and_shown_again_with_the_next_stream(page, browser, served):
    page("history")
    browser.wait(f"{ROWS}.length === 30")
    browser.problems.clear()
    browser.call("Network.setBlockedURLs", urls=["*/api/counts*", "*/api/events?*"])
    browser.run("document.querySelector('[data-period=day]').click()")
    browser.wait("document.querySelector('main .problem').innerText.includes('does not answer')")
    browser.call("Network.setBlockedURLs", urls=[])
    assert not any("Uncaught" in each for each in browser.problems)
    for one in [*served.web._hub.pages]:
        one.end()
    browser.wait(f"!document.querySelector('main .problem').innerText && {ROWS}.length === 30")
    assert "in 30 days" in browser.run(TEXT)


def test_new_events_are_offered(page, browser, served):
    page("history?label=purr")
    browser.wait("document.querySelector('#connection').innerText !== 'connecting'")
    news = "[...document.querySelectorAll('button')].find((e) => e.innerText === '1 new: show')"
    served.story.event(100, "onset", 58 * HOP, None, "Siren")  # not what is searched for
    served.story.event(101, "onset", 58 * HOP, None, "Purr")
    browser.wait(news)
    served.wait(
        lambda: served.get(f"/api/events?label=Purr&since={time.time() - 7200}")[1]["total"]
    )
    browser.run(f"{news}.click()")
    browser.wait(f"{ROWS}.length === 1")
    browser.wait(f"!{news}")
    for number in (100, 101):  # there were none
        name = "Siren" if number == 100 else "Purr"
        served.story.event(number, "revised", 58 * HOP, 58 * HOP, name)
    served.wait(lambda: served.get(f"/api/events?since={time.time() - 7200}")[1]["total"] == 30)


def test_marks_keep_the_focus_and_show_in_the_list(page, browser):
    page(f"event/{DOG}")
    browser.run("document.querySelector('[data-verdict=right]').focus()")
    browser.run("document.activeElement.click()")
    browser.wait("document.querySelector('.said').innerText === 'Right'")
    browser.wait("document.querySelector('#marks').ariaBusy === 'false'")
    assert browser.run("document.activeElement.dataset.verdict") == "right"
    options = "[...document.querySelector('#was').list.options].map((e) => e.value)"
    assert browser.run(options) == ["Dog", "Cat"]
    page("history?label=dog")
    browser.wait(f"{ROWS}.length === 1")
    assert "marked as right" in browser.run("document.querySelector('.mark').textContent")
    page(f"event/{DOG}")
    browser.run("document.querySelector('#marks .quiet').focus()")
    browser.run("document.activeElement.click()")
    browser.wait("document.querySelector('.said').innerText === 'Taken back'")
    assert browser.run("document.activeElement.dataset.verdict") == "right"  # not the whole page


def test_a_clip_has_a_name_and_a_place_in_the_list_and_a_missing_one_is_explained(page, browser):
    page(f"event/{DOG}")
    assert browser.run("document.querySelector('audio').ariaLabel") == "Clip of Dog"
    assert browser.run("document.querySelector('#marks a[download]').download") == f"{DOG}.flac"
    page(f"event/{SESSION}-kitchen-1")
    assert "No clip was kept: somebody spoke" in browser.run(TEXT)
    page("history")
    assert browser.run("[...document.querySelectorAll('.play')].length") == 1
    assert "Play Dog" in browser.run("document.querySelector('.play').textContent")
    assert "label=" not in browser.run("document.querySelector('a[download]').href")
    browser.run("document.querySelector('.play').click()")  # it is no sound: it says Play again
    browser.wait("document.querySelector('.play').innerText.startsWith('Play')")


def test_an_event_says_which_it_is_and_leads_to_the_next(page, browser):
    page(f"event/{SESSION}-kitchen-5")
    assert browser.run("document.title").startswith("Label 05, ")
    browser.wait("document.querySelectorAll('.ways a').length === 3")
    ways = browser.run("[...document.querySelectorAll('.ways a')].map((e) => e.innerText)")
    assert ways[1].startswith("Newer: Label 06")
    assert ways[2].startswith("Older: Label 04")
    page("history?label=dog")
    browser.wait(f"{ROWS}.length === 1")
    browser.run("document.querySelector('.events .label a').click()")
    browser.wait("document.querySelector('#marks')")
    assert browser.run("document.querySelectorAll('.ways a').length") == 1  # of that list
    caption = browser.run("document.querySelector('figcaption').innerText")
    assert "As first decided; revised later" in caption  # 0.5 in each hop, the event's peak is 0.8
    tall = browser.run("Number(document.querySelector('.peak').getAttribute('y1'))")
    assert tall == pytest.approx(160 - 20 - 130 * 0.8)


def test_charts_are_made_anew_for_another_width(page, browser):
    for view in ("history", f"event/{DOG}"):
        page(view)
        browser.wait("document.querySelector('.chart')")
        wide = "document.querySelector('.chart').viewBox.baseVal.width"
        assert browser.run(wide) == 960
        browser.look(390, 844)
        browser.wait(f"{wide} === 420")
        browser.look(844, 390)
        browser.wait(f"{wide} === 960")


def test_the_head_of_the_heat_map_on_a_phone(page, browser):
    browser.look(390, 844)
    page("history?period=day")
    browser.wait(f"{CELLS}.length")
    heads = "[...document.querySelectorAll('.heat thead th')]"
    assert all(browser.run(f"{heads}.map((e) => e.textContent.trim())"))
    tall = browser.run(f"{heads}.map((e) => e.getBoundingClientRect().height)")
    assert max(tall) < 24  # one line
    assert browser.run("document.querySelector('.heat').scrollLeft") > 0
    corner = "document.querySelector('.heat thead td').getBoundingClientRect()"
    assert (
        browser.run(f"{corner}.x - document.querySelector('.heat').getBoundingClientRect().x") < 3
    )
    at = f"document.elementFromPoint({corner}.x + 20, {corner}.y + 5).tagName"
    assert browser.run(at) == "TD"
    assert browser.run("document.documentElement.scrollWidth") <= 390


def test_a_labels_thresholds_open_below_it_and_close(page, browser):
    page("settings")
    buttons = "document.querySelectorAll('button.row')"
    assert browser.run(f"{TEXT}.includes('No such label')") is False
    browser.run(f"{buttons}[5].click()")
    assert browser.run(f"{buttons}[5].ariaExpanded") == "true"
    below = f"{buttons}[5].closest('tr').nextSibling.querySelector('.trial')"
    assert browser.run(f"Boolean({below})")
    browser.run(f"{buttons}[6].click()")
    assert browser.run(f"[{buttons}[5].ariaExpanded, {buttons}[6].ariaExpanded]") == [
        "false",
        "true",
    ]
    assert browser.run("document.querySelectorAll('.trial').length") == 1
    browser.run(f"{buttons}[6].click()")
    assert browser.run("document.querySelectorAll('.trial').length") == 0
    search = "document.querySelector('input[type=search]')"
    browser.run(f"{search}.value = 'zzz'; {search}.dispatchEvent(new Event('input'))")
    assert "No such label in the last day" in browser.run(TEXT)


def test_a_long_taught_name_is_no_wider_than_a_phone(page, browser, monkeypatch):
    sound = {"name": LONG, "recordings": 3, "seconds": 4.0, "false_alarms_a_day": 1.0}
    monkeypatch.setattr(settings, "_taught", lambda: [sound])
    browser.look(390, 844)
    page("settings")
    browser.wait(f"{TEXT}.includes({LONG!r})")
    assert browser.run("document.documentElement.scrollWidth") <= 390


def test_with_the_users_own_few_colours_nothing_is_lost(page, browser):
    page("history")
    browser.wait(f"{CELLS}.length")
    browser.call(
        "Emulation.setEmulatedMedia", features=[{"name": "forced-colors", "value": "active"}]
    )
    colour = "getComputedStyle({}).{}"
    canvas = browser.run(colour.format("document.body", "backgroundColor"))
    assert browser.run(colour.format(f"{CELLS}[0]", "backgroundColor")) != canvas
    pressed, other = (
        browser.run(
            colour.format(f"document.querySelector('[data-period={name}]')", "backgroundColor")
        )
        for name in ("hour", "day")
    )
    assert pressed != other
    here, there = (
        browser.run(colour.format(f"document.querySelector('nav {which}')", "borderBottomColor"))
        for which in ("[aria-current]", "a:not([aria-current])")
    )
    assert here != there
    assert there == canvas
