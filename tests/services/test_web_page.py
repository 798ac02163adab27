"""The page in headless Chromium: what it shows against what the journal holds."""

import os
import signal
import socket
import threading
import time

import numpy as np
import pytest

pytest.importorskip("uvicorn")

from streamtwl import history
from streamtwl.audio.recent import Recent
from streamtwl.config import WebSettings
from streamtwl.control import mel
from streamtwl.control.server import ControlServer
from streamtwl.history import Wanted
from streamtwl.marks.store import Marks
from streamtwl.services.web import access, live
from streamtwl.stages import SAMPLE_RATE, Block
from tests.browser import PATIENCE_S
from tests.services.test_web import HOSTILE, SECRET, tell
from tests.services.web import HOP, SESSION, TOP, serving

pytestmark = pytest.mark.slow
VIEWS = ("", "history", f"event/{SESSION}-kitchen-0", "health", "settings")


@pytest.fixture(scope="module", autouse=True)
def never_away():
    """The stories have no status each second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(live, "AWAY_S", float("inf"))
        yield


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("page")) as one:
        tell(one.story)
        one.told()
        yield one


@pytest.fixture
def page(browser, served):
    """Open a view; page("history") returns the text of the page once it is there."""
    browser.problems.clear()
    browser.look()
    browser.open(served.web.link)

    def open_view(view: str = "") -> str:
        browser.open(f"{served.web.address}/{view}")
        browser.wait("document.querySelector('main[data-ready]')")
        return browser.run("document.querySelector('main').innerText")

    yield open_view
    assert browser.problems == []  # nothing on the console


def test_live_shows_what_each_backbone_says_the_decision_and_the_events(page, browser):
    page()
    browser.wait("document.querySelectorAll('.five li').length === 15")
    browser.wait("document.querySelectorAll('.events tbody tr').length === 2")
    text = browser.run("document.querySelector('main').innerText")
    for said in ("kitchen", "listening", "yamnet:0.96", "mn04:3", "decision", "Bark", HOSTILE):
        assert said in text
    assert browser.run("document.querySelectorAll('img').length") == 0
    assert browser.run("document.querySelector('.now .label').innerText") == "Quiet"


def test_what_comes_is_shown_as_it_comes_and_second_thoughts_are_visible(page, browser, served):
    page()
    browser.wait("document.querySelector('.five')")
    served.story.hop(61 * HOP, "Dog", 0.77)
    browser.wait("document.querySelector('.now').innerText.includes('Dog')")
    assert "77\u00a0%" in browser.run("document.querySelector('.now').innerText")
    served.story.hop(62 * HOP, "Dog", 0.78, TOP[:3])
    third = "document.querySelectorAll('.five')[2]"
    browser.wait(f"{third}.querySelector('h3').innerText === \"the trace's samples\"")
    assert browser.run(f"{third}.querySelectorAll('li:not([hidden])').length") == 3
    served.story.event(9, "onset", 60 * HOP, None, "Dog")
    browser.wait("document.querySelector('.changes').innerText.includes('Dog began')")
    browser.wait("document.getElementById('announcer').innerText === 'kitchen: Dog'")
    served.story.event(9, "revised", 60 * HOP, None, "Bark")
    browser.wait("document.querySelector('.changes').innerText.includes('Dog was Bark')")
    served.story.event(9, "revised", 60 * HOP, 60 * HOP, "Bark")
    browser.wait("document.querySelector('.changes').innerText.includes('there was no Bark')")
    browser.wait("document.querySelectorAll('.events tbody tr').length === 2")


CONNECTION = "document.getElementById('connection').innerText"
HURRY = "{ const real = setTimeout; window.setTimeout = (work, ms) => real(work, ms / 20) }"


def test_a_listener_that_was_killed_is_shown_as_away_until_it_is_back(
    tmp_path, browser, monkeypatch
):
    browser.problems.clear()
    browser.look()
    with serving(tmp_path) as one:
        tell(one.story)
        one.told()
        browser.open(f"{one.web.address}/")
        browser.wait(f"{CONNECTION} === 'connected'")
        assert browser.run("document.querySelector('.state').innerText") == "listening"
        one.story.event(3, "onset", 59 * HOP, None, "Dog")
        browser.wait("document.querySelector('.events .open')")
        monkeypatch.setattr(live, "AWAY_S", 0.0)
        browser.wait(f"{CONNECTION} === 'listener away'")
        said = browser.run("document.querySelector('.source.away .state').innerText")
        assert said.startswith("nothing from the listener for ")
        assert browser.run("document.querySelector('.events .open')") is None
        assert "just now" not in browser.run("document.querySelector('.before').innerText")
        browser.run("document.querySelector('nav a[data-view=health]').click()")
        browser.wait("document.querySelector('section.away .problem')")
        assert "was listening" in browser.run("document.querySelector('section.away').innerText")
        browser.run("document.querySelector('nav a[data-view=live]').click()")
        browser.wait("document.querySelector('.source.away')")
        monkeypatch.setattr(live, "AWAY_S", float("inf"))
        one.told()
        browser.wait(f"{CONNECTION} === 'connected' && document.querySelector('.events .open')")
        assert browser.run("document.querySelector('.source:not(.away) .state').innerText") == (
            "listening"
        )
    assert browser.problems == []


def test_new_sounds_are_one_sentence_and_can_be_switched_off(page, browser, served):
    page()
    browser.wait("document.querySelector('.five')")
    browser.run("window.setTimeout = (work) => { window.due = work; return 1 }")
    for number, label in enumerate(("Bark", "Bow-wow", "Growling", "Bark", "Howl", "Yip")):
        served.story.event(20 + number, "onset", (70 + number) * HOP, None, label)
    browser.wait("document.querySelector('.changes').innerText.includes('Yip began')")
    assert browser.run("document.getElementById('announcer').innerText") == ""
    browser.run("window.due()")
    assert browser.run("document.getElementById('announcer').innerText") == (
        "kitchen: Bark, Bow-wow and 3 more"
    )
    browser.run("window.due = null")
    browser.run("document.querySelector('.announce input').click()")
    served.story.event(26, "onset", 77 * HOP, None, "Roar")
    browser.wait("document.querySelector('.changes').innerText.includes('Roar began')")
    assert browser.run("window.due") is None
    page()
    assert not browser.run("document.querySelector('.announce input').checked")
    browser.run("document.querySelector('.announce input').click()")
    for number in range(7):
        start = (70 + number) * HOP
        served.story.event(20 + number, "revised", start, start, "Bark")
    browser.wait("document.querySelectorAll('.events tbody tr').length === 2")


def test_focus_stays_on_its_event_while_others_come_and_go(page, browser, served):
    page()
    browser.wait("document.querySelectorAll('.events tbody tr').length === 2")
    browser.run("window.link = [...document.querySelectorAll('.events a')].at(-1); link.focus()")
    browser.run("window.card = document.querySelector('.source')")
    for number in range(14):  # more than the list has room for
        served.story.event(40 + number, "onset", (70 + number) * HOP, None, f"Sound {number}")
    browser.wait("document.querySelector('.events tbody tr').innerText.includes('Sound 13')")
    assert browser.run("document.activeElement === window.link && link.innerText === 'Bark'")
    for number in range(14):
        start = (70 + number) * HOP
        served.story.event(40 + number, "revised", start, start, f"Sound {number}")
    browser.wait("document.querySelectorAll('.events tbody tr').length === 2")
    assert browser.run("document.activeElement === window.link")
    assert browser.run("document.querySelector('.source') === window.card")


def test_a_hidden_page_lets_go_of_its_stream_and_connects_again(page, browser, served):
    page()
    pages = served.web._hub.pages
    browser.wait("document.querySelector('.five')")
    served.wait(lambda: len(pages) == 1, "the pages before have gone")
    browser.run("window.card = document.querySelector('.source')")
    browser.run(HURRY)
    seen = """Object.defineProperty(document, 'hidden', {{ value: {}, configurable: true }})
              document.dispatchEvent(new Event('visibilitychange'))"""
    browser.run(seen.format("true"))
    served.wait(lambda: not pages, "hidden")
    served.story.hop(90 * HOP, "Cat", 0.66)
    browser.run(seen.format("false"))
    browser.wait("document.querySelector('.now').innerText.includes('Cat')")
    assert len(pages) == 1
    assert "Cat" in browser.run("document.querySelector('.changes').innerText")
    assert browser.run("document.querySelector('.source') === window.card")
    served.story.hop(91 * HOP, None, 0.3)


def test_names_on_the_time_axis_do_not_overprint(page, browser, served):
    page()
    browser.wait("document.querySelector('.five')")
    browser.run("""
      window.texts = []
      const { clearRect, fillText } = CanvasRenderingContext2D.prototype
      const lanes = (context) => context.canvas.className === 'timeline'
      CanvasRenderingContext2D.prototype.clearRect = function (...box) {
        if (lanes(this)) { window.drawn = window.texts; window.texts = [] }
        clearRect.apply(this, box)
      }
      CanvasRenderingContext2D.prototype.fillText = function (text, x, y) {
        if (lanes(this)) window.texts.push({ text, x, y, end: x + this.measureText(text).width })
        fillText.call(this, text, x, y)
      }""")
    for number in range(6):
        served.story.event(60 + number, "onset", (50 + number) * HOP, None, f"Long name {number}")
    browser.wait("document.querySelector('.changes').innerText.includes('name 5 began')")
    browser.wait("window.drawn?.filter((each) => each.text.startsWith('Long')).length >= 3")
    drawn = browser.run("window.drawn")
    assert len([each for each in drawn if each["text"].startswith("Long")]) == 3
    for one in drawn:
        for other in drawn:
            apart = one["x"] >= other["end"] or other["x"] >= one["end"] or one["y"] != other["y"]
            assert apart or one is other, (one, other)
    for number in range(6):
        start = (50 + number) * HOP
        served.story.event(60 + number, "revised", start, start, f"Long name {number}")
    browser.wait("document.querySelectorAll('.events tbody tr').length === 2")


@pytest.mark.parametrize("width", [320, 1280])
def test_a_cards_header_breaks_between_words(page, browser, width):
    browser.look(width, 700)
    page()
    browser.wait("document.querySelector('.five')")
    lines = "Math.round(document.querySelector('.source h2').getClientRects()[0].height / 24)"
    for name, most in (("kitchen", 1), ("usb_microphone_in_the_far_greenhouse_north", 2)):
        browser.run(f"document.querySelector('.source h2').textContent = '{name}'")
        assert browser.run(lines) <= most
        assert browser.run("document.documentElement.scrollWidth <= innerWidth")


def test_health_leaves_what_is_selected_and_says_a_problem_once(page, browser, served):
    page("health")
    browser.wait("document.querySelector('section')")
    browser.run(HURRY)
    browser.run("""
      window.told = 0
      new MutationObserver((all) => all.forEach(() => window.told++)).observe(
        document.querySelector('[role=alert]'),
        { childList: true, characterData: true, subtree: true },
      )
      const more = [...document.querySelectorAll('small')]
      getSelection().selectAllChildren(more.find((e) => e.innerText.includes('.sqlite')))""")
    served.story.status(3000 * HOP)
    browser.wait("document.querySelector('main').innerText.includes('24\u00a0min')")
    assert browser.run("getSelection().toString()") == str(served.journal)
    browser.run("""
      window.refused = 0
      window.answered = fetch
      window.fetch = () => { window.refused++; return Promise.reject(new TypeError('away')) }""")
    browser.wait("window.refused > 3")
    assert browser.run("window.told") == 1
    assert "does not answer" in browser.run("document.querySelector('[role=alert]').innerText")
    assert browser.run("document.querySelector('.away .facts') !== null")
    browser.run("window.fetch = window.answered")
    browser.wait("document.querySelector('[role=alert]').innerText === ''")
    browser.wait("!document.querySelector('.away')")
    assert browser.run("getSelection().toString()") == str(served.journal)


def test_an_unknown_view_says_so(browser, served):
    browser.look()
    browser.open(f"{served.web.address}/nope")
    browser.wait("document.querySelector('main[data-ready]')")
    assert "There is nothing at /nope" in browser.run("document.querySelector('main').innerText")
    browser.run("document.querySelector('main a').click()")
    browser.wait("document.querySelector('.source')")


def test_a_view_that_is_left_while_it_loads_shows_nothing(page, browser):
    page("history")
    browser.run("""(() => {
      const real = window.fetch
      const held = new Promise((resolve) => { window.letGo = resolve })
      window.fetch = async (path, options) => {
        if (String(path).includes("/api/settings")) await held
        return real(path, options)
      }
    })()""")
    browser.run("document.querySelector('nav a[href=\"/settings\"]').click()")
    browser.run("document.querySelector('nav a[href=\"/health\"]').click()")
    browser.wait("document.querySelector('main').dataset.ready === 'health'")
    browser.run("window.letGo()")
    browser.run("window.fetch('/api/settings').then(() => { window.answered = true })")
    browser.wait("window.answered")
    browser.run("window.fetch('/api/settings').then(() => { window.answered = 2 })")
    browser.wait("window.answered === 2")
    assert "Thresholds" not in browser.run("document.querySelector('main').innerText")


def test_history_shows_the_events_of_the_journal(page, browser, served):
    page("history")
    browser.wait("document.querySelectorAll('.events tbody tr').length")
    shown = browser.run("[...document.querySelectorAll('.events .label')].map((e) => e.innerText)")
    in_journal = sorted(history.events(served.journal, Wanted()), key=history.began_at)
    assert shown == [each.label for each in in_journal][::-1]
    cells = "document.querySelectorAll('.heat button')"
    assert browser.run(f"{cells}.length") == 2
    browser.run(f"[...{cells}].find((e) => e.title.startsWith('<img')).click()")
    browser.wait("document.querySelectorAll('.events tbody tr').length === 1")
    assert browser.run("document.querySelector('.events .label').innerText") == HOSTILE
    assert "Leq 50" in browser.run("document.querySelector('main').innerText")


def test_an_event_has_a_page_and_a_place_for_what_its_user_says(page, browser):
    text = page(VIEWS[2])
    assert (
        text.index("It began: Dog") < text.index("it was Bark, not Dog") < text.index("It is over")
    )
    assert browser.run("document.querySelector('#marks').dataset.event") == f"{SESSION}-kitchen-0"


def test_a_click_says_that_it_was_something_else(page, browser, tmp_path, monkeypatch):
    monkeypatch.setenv("STREAMTWL_DATA", str(tmp_path))
    page(VIEWS[2])
    browser.run("document.querySelector('[data-verdict=right]').click()")
    browser.wait("document.querySelector('.said').innerText === 'Right'")
    assert [mark.verdict for mark in Marks().all()] == ["right"]
    browser.run("document.querySelector('#was').value = 'Fridge'")
    browser.run("document.querySelector('#marks form').requestSubmit()")
    browser.wait("document.querySelector('.said').innerText.startsWith('Wrong')")
    assert [(mark.verdict, mark.was) for mark in Marks().all()] == [("wrong", "Fridge")]
    page(VIEWS[2])
    assert browser.run("document.querySelector('[aria-pressed=true]').innerText") == "Wrong"
    browser.run("document.querySelector('#marks .quiet').click()")
    browser.wait("document.querySelector('.said').innerText === 'Taken back'")
    assert Marks().all() == []


def test_health_and_settings(page, browser):
    text = page("health")
    assert "12 ms" in text
    assert "is read" in text
    page("settings")
    browser.run(
        "[...document.querySelectorAll('button.row')].find((e) => e.innerText === 'Dog').click()"
    )
    browser.wait(
        "document.querySelector('.trial [role=status]').innerText.includes('As it is set')"
    )
    assert "1 event," in browser.run("document.querySelector('.trial [role=status]').innerText")
    assert '"Dog" = { on = 0.43' in browser.run("document.querySelector('pre').innerText")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("view", VIEWS)
def test_on_a_phone_nothing_is_wider_than_it(page, browser, view, dark, tmp_path):
    browser.look(390, 844, dark, scale=2)
    page(view)
    time.sleep(0.2)  # for the pictures
    wide = browser.run("[document.documentElement.scrollWidth, innerWidth]")
    assert wide[0] <= wide[1], view
    browser.picture(tmp_path / "phone.png")
    assert (tmp_path / "phone.png").stat().st_size > 10_000


@pytest.mark.parametrize("view", VIEWS)
def test_all_can_be_reached_by_keyboard_and_has_a_name(page, browser, view):
    page(view)
    browser.wait("document.querySelectorAll('main *').length > 5")
    nameless = """
      [...document.querySelectorAll('button, a, input, canvas, svg, [role=region]')].filter((e) =>
        !(e.innerText || e.getAttribute('aria-label') || e.labels?.length) && !e.hidden
      ).map((e) => e.outerHTML)"""
    assert browser.run(nameless) == []
    assert browser.run("document.querySelectorAll('h1').length") == 1
    assert browser.run("document.documentElement.lang") == "en"
    assert browser.run("document.querySelector('nav [aria-current=page]').innerText")
    reachable = "[...document.querySelectorAll('[onclick], .clickable')].length"
    assert browser.run(reachable) == 0  # what is clicked is a button or a link
    browser.run("document.activeElement.blur()")
    for kind in ("keyDown", "keyUp"):
        browser.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab")
    assert browser.run("document.activeElement.className") in ("skip", "name")


def test_it_can_be_installed(page, browser):
    page()
    found = browser.call("Page.getInstallabilityErrors")["installabilityErrors"]
    assert [each["errorId"] for each in found if each["errorId"] != "in-incognito"] == []


def test_the_spectrogram_comes_over_the_control_socket(browser, tmp_path, monkeypatch):
    monkeypatch.setenv("STREAMTWL_STATE", str(tmp_path / "s"))
    recent = Recent(30.0)
    over = threading.Event()

    def frames(source: str, since: int, most: int, session: str) -> mel.Mel:
        assert session == SESSION
        return mel.frames(*recent.since(since, mel.samples_in(most)), since)

    def speak() -> None:  # a tone that begins anew each second
        position = 0
        while not over.wait(0.1):
            at = np.arange(SAMPLE_RATE // 10) / SAMPLE_RATE
            tone = (0.3 * np.sin(2 * np.pi * 1500 * at)).astype(np.float32)
            recent.push(Block(0, position, tone, None, 0.0))
            position += len(tone)

    control = ControlServer(list, lambda seconds, source: ("kitchen", b""), frames)
    speaker = threading.Thread(target=speak)
    speaker.start()
    try:
        with serving(tmp_path) as one:
            tell(one.story)
            one.told()
            browser.look()
            browser.open(one.web.link)
            browser.wait("document.querySelector('figcaption')?.innerText.includes('kHz')")
            one.story.hop(80 * HOP)
            colours = """(() => {
              const canvas = document.querySelector('.spectrogram')
              const context = canvas.getContext('2d')
              const { data } = context.getImageData(0, 0, canvas.width, canvas.height)
              return new Set(new Uint32Array(data.buffer)).size
            })()"""
            browser.wait(f"{colours} > 20")
            one.wait(lambda: len(one.web._hub.pages) == 1, "the pages before have gone")
    finally:
        over.set()
        speaker.join()
        control.close()


def test_the_page_of_a_listener_shows_what_its_journal_holds(browser, yamnet, start_cli, tmp_path):
    """The demo, from `listen --web` to the browser; nothing in between is a stand-in."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    journal, state = tmp_path / "journal.sqlite", tmp_path / "s"
    listening = start_cli(
        *("listen", "--demo", "--labels", "everyday", "--pipeline", "yamnet", "--quiet"),
        *("--bind", "tcp://127.0.0.1:*", "--replay-bind", "tcp://127.0.0.1:*"),
        *("--journal", journal, "--web", f"127.0.0.1:{port}", "--clips", tmp_path / "clips"),
        env=os.environ | {"STREAMTWL_STATE": str(state)},
    )
    for line in listening.stderr:
        if b"the page is at" in line:
            link = line.decode().split()[-1]
            break
    browser.problems.clear()
    browser.look()
    browser.open(link)
    browser.wait("document.querySelector('figcaption')?.innerText.includes('kHz')")
    browser.wait("document.querySelectorAll('.events tbody tr').length >= 2")
    browser.open(f"http://127.0.0.1:{port}/history")
    browser.wait("document.querySelectorAll('.events tbody tr').length >= 2")
    shown = browser.run("[...document.querySelectorAll('.events .label')].map((e) => e.innerText)")
    until = time.monotonic() + PATIENCE_S
    while not (clips := [*(tmp_path / "clips").glob("*.flac")]):
        assert time.monotonic() < until, "no clip"
        time.sleep(0.1)
    browser.open(f"http://127.0.0.1:{port}/event/{clips[0].stem}")
    browser.wait("document.querySelector('#marks audio')")
    browser.run("document.querySelector('#marks audio').load()")
    browser.run("document.querySelector('#marks audio').preload = 'auto'")
    browser.wait("document.querySelector('#marks audio').duration > 1")
    others = [each for each in browser.problems if f":{port}/" not in each and "://" in each]
    assert browser.problems == others  # a server of a test before, which has gone
    listening.send_signal(signal.SIGINT)
    assert listening.wait() == 0
    held = [each.label for each in history.events(journal, Wanted())]
    assert len(shown) >= 2
    assert set(shown) <= set(held), held  # what was revised later may have another name
    minutes = [*history.messages(journal, Wanted("status"))]
    assert any(each.level_dba is not None for each in minutes)


def test_one_logs_in_and_out(browser, tmp_path, monkeypatch):
    monkeypatch.setitem(access.SCRYPT, "n", 2**4)
    monkeypatch.setenv("STREAMTWL_WEB_PASSWORD", SECRET)
    with serving(tmp_path, WebSettings(address="127.0.0.1:0")) as one:
        tell(one.story)
        one.told()
        browser.open(str(one.web.address))
        browser.wait("location.pathname === '/login' && document.querySelector('form')")
        assert browser.run("document.querySelector('form').method") == "post"  # never in an address
        browser.wait("!document.querySelector('button').disabled")
        for password in ("wrong", SECRET):
            browser.run(f"document.getElementById('password').value = {password!r}")
            browser.run("document.querySelector('form').requestSubmit()")
            if password == "wrong":
                browser.wait("document.getElementById('problem').innerText.includes('not the')")
        browser.wait("document.querySelector('.source')")
        browser.wait("!document.getElementById('logout').hidden")
        browser.run("window.answered = fetch")
        browser.run("window.fetch = () => Promise.reject(new TypeError('away'))")
        browser.run("document.getElementById('logout').click()")
        browser.wait("document.querySelector('main').innerText.includes('You are still logged in')")
        browser.run("window.fetch = window.answered")
        browser.run("document.getElementById('logout').click()")
        browser.wait("location.pathname === '/login'")
