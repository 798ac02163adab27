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
from streamtwl.services.web import access
from streamtwl.stages import SAMPLE_RATE, Block
from tests.browser import PATIENCE_S, Browser, chromium
from tests.services.test_web import HOSTILE, SECRET, tell
from tests.services.web import HOP, SESSION, serving

pytestmark = pytest.mark.slow
VIEWS = ("", "history", f"event/{SESSION}-kitchen-0", "health", "settings")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("page")) as one:
        tell(one.story)
        one.told()
        yield one


@pytest.fixture(scope="module")
def browser():
    if chromium() is None:
        pytest.skip("no chromium: apt-get install chromium")
    one = Browser()
    yield one
    one.close()


@pytest.fixture
def page(browser, served):
    """Open a view; page("history") returns the text of the page once it is there."""
    browser.problems.clear()
    browser.look()

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
    served.story.event(9, "onset", 60 * HOP, None, "Dog")
    browser.wait("document.querySelector('.changes').innerText.includes('Dog began')")
    assert browser.run("document.getElementById('announcer').innerText") == "Dog at kitchen"
    served.story.event(9, "revised", 60 * HOP, None, "Bark")
    browser.wait("document.querySelector('.changes').innerText.includes('Dog was Bark')")
    served.story.event(9, "revised", 60 * HOP, 60 * HOP, "Bark")
    browser.wait("document.querySelector('.changes').innerText.includes('there was no Bark')")
    browser.wait("document.querySelectorAll('.events tbody tr').length === 2")


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
            browser.open(str(one.web.address))
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
            break
    browser.problems.clear()
    browser.look()
    browser.open(f"http://127.0.0.1:{port}/")
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
        browser.run("document.getElementById('logout').click()")
        browser.wait("location.pathname === '/login'")
