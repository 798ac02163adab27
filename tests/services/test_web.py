"""The web service: what it says against the journal, who may see it, and what it survives."""

import asyncio
import contextlib
import csv
import http.client
import io
import itertools
import json
import math
import re
import shutil
import socket
import ssl
import subprocess
import time
import urllib.request
from datetime import datetime

import msgspec
import pytest

pytest.importorskip("uvicorn")

from streamtwl import history
from streamtwl.clips.moments import Moments, write_clip
from streamtwl.config import WebSettings
from streamtwl.control.messages import Answer
from streamtwl.errors import ControlError, SinkError, UsageError
from streamtwl.history import Wanted
from streamtwl.marks.store import Marks
from streamtwl.services.web import access, api, connections, live, make, peers, shown, table
from streamtwl.services.web.access import Access, Password
from streamtwl.services.web.api import ASSETS
from streamtwl.services.web.live import QUEUE, Hub
from streamtwl.services.web.what_if import Hops
from tests.example_messages import event as event_message
from tests.example_messages import label as label_message
from tests.services.web import HOP, SESSION, serving

HOSTILE = "<img src=x onerror=alert(1)>"
SECRET = "correct horse battery staple"
TOKEN = "0123456789abcdefghij"


def tell(story) -> None:
    """A dog that is revised to a bark, a hostile name, a retracted cat, decisions, a level."""
    story.hello()
    story.event(0, "onset", 10 * HOP, None, "Dog")
    story.event(0, "revised", 9 * HOP, None, "Bark")
    story.event(0, "offset", 9 * HOP, 14 * HOP, "Bark")
    story.event(1, "onset", 20 * HOP, None, HOSTILE)
    story.event(1, "offset", 20 * HOP, 22 * HOP, HOSTILE)
    story.event(2, "onset", 30 * HOP, None, "Cat")
    story.event(2, "revised", 30 * HOP, 30 * HOP, "Cat")
    for hop in range(1, 60):
        loud = 10 <= hop < 14 or 40 <= hop < 41
        story.hop(hop * HOP, "Dog" if loud else None, 0.8 if loud else 0.3)
    story.level(50 * HOP)
    story.status(60 * HOP)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("web")) as one:
        tell(one.story)
        one.told()
        yield one


@pytest.fixture
def protected(tmp_path, monkeypatch):
    monkeypatch.setitem(access.SCRYPT, "n", 2**4)  # quickly
    (tmp_path / "password").write_text(f"{SECRET}\n")
    (tmp_path / "password").chmod(0o600)
    monkeypatch.setenv("STREAMTWL_WEB_TOKEN", TOKEN)
    settings = WebSettings(address="127.0.0.1:0", password_file=str(tmp_path / "password"))
    with serving(tmp_path, settings) as one:
        yield one


def test_the_events_are_those_of_the_journal(served):
    in_journal = [*history.events(served.journal, Wanted())]
    _, found, _ = served.get("/api/events")
    assert found["total"] == len(in_journal) == 2
    assert {each["id"]: each["label"] for each in found["events"]} == {
        each.id: each.label for each in in_journal
    }
    assert [each["began_at"] for each in found["events"]] == pytest.approx(
        sorted((history.began_at(each) for each in in_journal), reverse=True), abs=0.01
    )
    _, page, _ = served.get("/api/events?limit=1&offset=1")
    assert [each["label"] for each in page["events"]] == ["Bark"]
    assert served.get("/api/events?label=b*")[1]["total"] == 1


def test_the_heat_map_counts_what_history_counts(served):
    _, found, _ = served.get("/api/counts?period=hour")
    counted = {row["label"]: (row["events"], row["seconds"]) for row in found["rows"]}
    expected = history.counts(served.journal, Wanted(), "day")
    assert counted == {each.label: (each.events, round(each.seconds, 1)) for each in expected}
    assert sum(cell[1] for row in found["rows"] for cell in row["cells"]) == found["events"] == 2
    assert len(served.get("/api/counts?period=day")[1]["columns"]) == 30


def test_a_cell_of_the_heat_map_is_the_list_of_what_began_in_it(tmp_path):
    with serving(tmp_path) as one:
        one.story.began = time.time() // 3600 * 3600 - 7200.0  # an hour
        one.story.hello()
        for number, (start, end) in enumerate([(3540, 3660), (7140, 7200), (7200, 7210)]):
            span = start * 16_000, end * 16_000
            one.story.event(number, "onset", span[0], None, "Dog")
            one.story.event(number, "offset", *span, "Dog")
        one.told()
        one.wait(lambda: one.get("/api/events")[1]["total"] == 3)
        found = one.get("/api/counts")[1]
        [row] = found["rows"]
        for column, count, _ in row["cells"]:
            since = found["columns"][column]
            cell = f"since={since}&until={since + 3600}&label=Dog&began=1"
            assert one.get(f"/api/events?{cell}")[1]["total"] == count
        assert sum(count for _, count, _ in row["cells"]) == 3


def test_an_event_whose_id_others_begin_with_has_all_its_messages(tmp_path):
    with serving(tmp_path) as one:
        one.story.hello()
        one.story.event(1, "onset", 0, None, "Dog")
        for number in range(10, 70):  # ...-1 begins 10, 11, ...
            one.story.event(number, "onset", HOP, None, "Cat")
            one.story.event(number, "offset", HOP, 2 * HOP, "Cat")
        one.story.event(1, "offset", 0, 100 * HOP, "Dog")
        one.told()
        path = f"/api/events/{SESSION}-kitchen-1"
        one.wait(lambda: one.get(path)[0] == 200)
        one.wait(lambda: len(one.get(path)[1]["messages"]) == 2)
        assert one.get(path)[1]["event"]["seconds"] == pytest.approx(48.0)


def test_an_event_has_all_its_messages_and_the_decisions_around_it(served):
    _, found, _ = served.get(f"/api/events/{SESSION}-kitchen-0")
    assert [each["phase"] for each in found["messages"]] == ["onset", "revised", "offset"]
    assert [each["label"] for each in found["messages"]] == ["Dog", "Bark", "Bark"]
    assert [hop["label"] for hop in found["hops"]].count("Dog") == 4
    for wrong in ("nothing", f"{SESSION}-kitchen-99", "%00", "..%2F..%2Fetc%2Fpasswd"):
        assert served.get(f"/api/events/{wrong}")[0] == 404


def test_the_users_word_on_an_event_is_a_mark_and_can_be_taken_back(served, tmp_path, monkeypatch):
    monkeypatch.setenv("STREAMTWL_DATA", str(tmp_path))
    key = served.key
    event = f"/api/events/{SESSION}-kitchen-0"
    marking = served.get(event, **key)[1]["marking"]
    assert (marking["clip"], marking["mark"]) == (False, None)
    assert "no clip was kept" in marking["no_clip"]
    word = {"verdict": "wrong", "was": " Fridge "}
    status, found, _ = served.get(f"{event}/mark", "POST", word, **key)
    assert (status, found["problem"]) == (200, "")
    [mark] = Marks().all()
    assert (mark.label, mark.verdict, mark.was) == ("Bark", "wrong", "Fridge")
    assert served.get(event)[1]["marking"]["mark"] == {
        "verdict": "wrong", "was": "Fridge", "said": found["said"]
    }  # fmt: skip
    assert [each["mark"] for each in served.get("/api/events")[1]["events"]] == [None, "wrong"]
    assert served.get(f"{event}/mark", "DELETE", **key)[0] == 200
    assert Marks().all() == []

    wrong_verdict, not_wrong = {"verdict": "maybe"}, {"verdict": "right", "was": "Cat"}
    too_long, itself = ({"verdict": "wrong", "was": was} for was in ("x" * 201, "Bark"))
    for wrong in ({}, [], None, wrong_verdict, not_wrong, too_long, itself):
        assert served.get(f"{event}/mark", "POST", wrong, **key)[0] == 400
    for nothing in ("nothing", f"{SESSION}-kitchen-99", "..%2F..%2Fetc%2Fpasswd"):
        status = served.get(f"/api/events/{nothing}/mark", "POST", {"verdict": "right"}, **key)[0]
        assert status in (400, 404)
        assert served.get(f"/api/events/{nothing}/clip", **key)[0] == 404
        assert served.get(f"/api/events/{nothing}/mark", "DELETE", **key)[0] == 404
    assert served.get(f"{event}/clip", **key)[0] == 404
    elsewhere = {"origin": "https://evil.example"}
    assert served.get(f"{event}/mark", "POST", {"verdict": "right"}, **elsewhere, **key)[0] == 403
    assert Marks().all() == []


def test_a_clip_can_be_sought_and_lists_say_where_there_is_one(tmp_path):
    flac = bytes(range(100))
    with serving(tmp_path) as one:
        tell(one.story)
        one.told()
        event, *_ = history.events(one.journal, Wanted(labels=["Bark"]))
        write_clip(tmp_path / "clip.flac", flac)
        with contextlib.closing(Moments(one.journal)) as moments:
            moments.add(event, 0.0, tmp_path / "clip.flac", {})
        clip = f"/api/events/{event.id}/clip"
        status, content, headers = one.get(clip, **one.key)
        assert (status, content, headers["accept-ranges"]) == (200, flac, "bytes")
        assert headers["content-type"] == "audio/flac"
        status, content, headers = one.get(clip, range="bytes=10-19", **one.key)
        assert (status, content) == (206, flac[10:20])
        assert headers["content-range"] == "bytes 10-19/100"
        assert one.get(clip, range="bytes=100-", **one.key)[0] == 416
        listed = one.get("/api/events", **one.key)[1]["events"]
        assert {each["label"]: each["clip"] for each in listed} == {HOSTILE: False, "Bark": True}
        assert one.get(f"/api/events/{event.id}", **one.key)[1]["marking"]["no_clip"] is None
        (tmp_path / "clip.flac").unlink()
        assert one.get(clip, **one.key)[0] == 404


def test_the_heat_map_is_cut_and_says_so_and_the_settings_count_all(tmp_path):
    with serving(tmp_path) as one:
        one.story.hello()
        for number in range(30):
            one.story.event(number, "onset", number * HOP, None, f"Label {number:02}")
        one.told()
        one.wait(lambda: one.get("/api/events")[1]["total"] == 30)
        found = one.get("/api/counts")[1]
        assert (found["labels"], len(found["rows"])) == (30, 24)
        settings = one.get("/api/settings")[1]["thresholds"]
        assert [each["events"] for each in settings if each["label"].startswith("Label")] == [
            1
        ] * 30


def test_the_heat_map_takes_the_filters_of_the_list(served):
    found = served.get("/api/counts?label=*ar*&source=kitchen")[1]
    assert [row["label"] for row in found["rows"]] == ["Bark"]
    assert (found["labels"], found["sources"]) == (1, ["kitchen"])
    elsewhere = served.get("/api/counts?source=attic")[1]
    assert (elsewhere["rows"], elsewhere["sources"]) == ([], ["kitchen"])


def test_an_event_whose_listener_was_killed_is_not_open_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(live, "AWAY_S", math.inf)  # whatever the machine's speed
    with serving(tmp_path) as one:
        one.story.hello()
        one.story.event(0, "onset", 10 * HOP, None, "Dog")
        one.story.hop(20 * HOP)
        identity = f"/api/events/{SESSION}-kitchen-0"
        one.told()
        one.wait(lambda: one.get(identity)[0] == 200)
        assert one.get(identity)[1]["event"]["open"]
        with monkeypatch.context() as away:
            away.setattr(live, "AWAY_S", 0.0)
            assert not one.get(identity)[1]["event"]["open"]
        one.story.session, one.story.seq = "f" * 16, {}
        one.story.hello()
        one.story.event(0, "onset", 10 * HOP, None, "Cat")
        one.story.status(60 * HOP)
        one.wait(lambda: one.web._hub.sources["kitchen"].session == one.story.session)
        one.wait(lambda: one.get(f"/api/events?since={time.time() - 7200}")[1]["total"] == 2)
        listed = one.get(f"/api/events?since={time.time() - 7200}")[1]["events"]
        assert {each["label"]: each["open"] for each in listed} == {"Dog": False, "Cat": True}
        event = one.get(identity)[1]["event"]
        dog = next(each for each in listed if each["label"] == "Dog")
        assert not event["open"]
        assert event["seconds"] == dog["seconds"] > 4  # up to its listener's last message


def test_the_list_is_a_table_for_spreadsheets(served):
    status, content, headers = served.get("/api/events.csv")
    assert status == 200
    assert headers["content-type"].startswith("text/csv")
    assert "events.csv" in headers["content-disposition"]
    rows = [*csv.DictReader(io.StringIO(content.decode()))]
    listed = served.get("/api/events")[1]["events"]
    assert [row["id"] for row in rows] == [each["id"] for each in listed]
    assert datetime.fromisoformat(rows[0]["began_at"]).timestamp() == listed[0]["began_at"]
    assert len(served.get("/api/events.csv?label=Bark")[1].splitlines()) == 2
    assert served.get("/api/events.csv?since=x")[0] == 400


@pytest.mark.parametrize("label", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_no_cell_of_the_table_is_a_formula(label):
    event = shown.event_of(msgspec.structs.replace(event_message(0), label=label, source="-x"))
    [row] = csv.DictReader(io.StringIO(table.of([event]), newline=""))
    assert (row["label"], row["source"]) == (f"'{label}", "'-x")


def test_thresholds_say_what_they_would_have_done(served):
    for on, events, seconds in ((0.5, 2, 5 * 0.48), (0.9, 0, 0.0), (0.25, 1, 58 * 0.48)):
        _, found, _ = served.get(f"/api/what-if?label=Dog&on={on}&off={on}")
        assert (found["events"], found["seconds"]) == (events, pytest.approx(seconds, abs=0.1))
    assert served.get("/api/what-if?label=Nothing&on=0.5&off=0.2")[1]["events"] == 0
    assert served.get("/api/what-if?label=Dog&on=0.2&off=0.5")[0] == 400


def test_settings_levels_health_and_state(served):
    _, settings, _ = served.get("/api/settings")
    dog = next(each for each in settings["thresholds"] if each["label"] == "Dog")
    assert (dog["on"], dog["off"], settings["hop_s"]) == (0.43, 0.22, 0.48)
    [minute] = served.get("/api/levels")[1]
    assert (minute["leq_dba"], minute["l90_dba"]) == (50.0, 40.0)
    _, health, _ = served.get("/api/health")
    assert health["journal"] == str(served.journal)
    assert "away_s" in health["sources"]["kitchen"]
    assert health["sources"]["kitchen"]["latency_ms"] == {"p50": 12.0, "p99": 12.0}
    kitchen = served.get("/api/state")[1]["sources"]["kitchen"]
    assert {each["label"] for each in kitchen["events"]} == {"Bark", HOSTILE}
    assert kitchen["hops"][-1]["others"][0]["window"] == "mn04:3"


def test_openapi_describes_every_operation(served):
    _, document, _ = served.get("/api/openapi.json")
    app = api.Api(Hub(), served.web, Access(), True, None)
    routes = {(method.lower(), path) for method, path, _ in app._operations()}
    described = {(method, path) for path, each in document["paths"].items() for method in each}
    assert described == routes | {("get", "/api/live")}
    names = {each["name"] for each in document["paths"]["/api/events"]["get"]["parameters"]}
    assert names == {"since", "until", "label", "source", "began", "limit", "offset"}


@pytest.mark.parametrize(
    "query",
    ["since=x", "since=nan", "since=-1", "since=1", "since=1e400", "limit=0", "limit=501",
     "source=..", "source=*", f"label={'x' * 201}", "offset=-1", "lable=x", "began=2"],
)  # fmt: skip
def test_a_wrong_parameter_is_refused_in_a_line(served, query):
    status, found, _ = served.get(f"/api/events?{query}")
    assert status == 400
    assert len(found["error"].splitlines()) == 1


def test_an_address_that_is_none_is_said_as_a_page_and_under_api_as_json(served):
    status, page, headers = served.get("/nope")
    assert (status, headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert b'href="/"' in page
    assert served.get("/api/nope")[:2] == (404, {"error": "there is no /api/nope"})


@pytest.mark.parametrize(
    "path",
    ["/assets/../page.py", "/assets/%2e%2e/page.py", "/assets/..%2fpage.py", "/assets//etc/passwd",
     "/assets/%2fetc%2fpasswd", "/assets/..\\page.py", "//etc/passwd", "/assets/", "/../page.py"],
)  # fmt: skip
def test_no_path_leads_out_of_the_assets(served, path):
    status, content, _ = served.get(path)
    assert status == 404
    assert b"root:" not in content


def test_every_answer_has_the_headers_and_the_page_loads_nothing_from_elsewhere(served):
    paths = ["/", "/assets/app.js", "/api/events", "/nothing", "/api/events?since=x"]
    for path in paths:
        _, _, headers = served.get(path)
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
    for file in ASSETS.iterdir():
        if file.suffix in (".js", ".css", ".html", ".webmanifest"):
            text = file.read_text().replace("http://www.w3.org/2000/svg", "")
            assert not re.search(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}/", text), file.name
            assert "innerHTML" not in text
    icons = json.loads((ASSETS / "manifest.webmanifest").read_text())["icons"]
    for icon in icons:
        assert (ASSETS / icon["src"].removeprefix("/assets/")).exists()


def test_contrast_is_enough_in_both_colours():
    """WCAG 2.2: 4.5 for text, 3 for what has a meaning."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        r, g, b = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    def contrast(one: str, other: str) -> float:
        low, high = sorted(map(luminance, (one, other)))
        return (high + 0.05) / (low + 0.05)

    light, dark, *_ = re.findall(r":root \{(.*?)\}", (ASSETS / "style.css").read_text(), re.DOTALL)
    for block in (light, dark):
        colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))
        for ground, text in itertools.product(
            ("paper", "sheet"), ("ink", "soft", "accent", "alarm", "good")
        ):
            assert contrast(colours[ground], colours[text]) >= 4.5, (ground, text)
        assert contrast(colours["accent-soft"], colours["ink"]) >= 4.5
        assert min(contrast(colours[ground], colours["edge"]) for ground in ("paper", "sheet")) >= 3


# --- who may see it ---


def test_a_thousand_requests_at_once_of_one_address_are_refused_and_others_served():
    served = []

    async def app(scope, receive, send):
        served.append(scope["client"][0])
        await send({"type": "http.response.start", "status": 200, "headers": []})

    guarded = Access().wrap(app)
    statuses = {"10.0.0.1": [], "10.0.0.2": []}

    async def request(address: str) -> None:
        scope = {"type": "http", "method": "GET", "path": "/", "client": (address, 1)}
        scope["headers"] = [(b"host", b"localhost:8765")]

        async def send(message) -> None:
            if message["type"] == "http.response.start":
                statuses[address].append((message["status"], dict(message["headers"])))

        await guarded(scope, None, send)

    async def run() -> None:
        for _ in range(1000):
            await request("10.0.0.1")
        for _ in range(10):
            await request("10.0.0.2")

    asyncio.run(run())
    refused = [headers for status, headers in statuses["10.0.0.1"] if status == 429]
    assert len(refused) > 500
    assert all(int(headers[b"retry-after"]) >= 1 for headers in refused)
    assert {status for status, _ in statuses["10.0.0.2"]} == {200}
    assert len(served) == 1010 - len(refused)


def test_addresses_are_remembered_in_a_bounded_table():
    buckets = peers.Buckets(1.0, 2.0)
    for number in range(peers.ADDRESSES + 50):
        buckets.take(str(number))
    assert len(buckets._left) == peers.ADDRESSES
    assert peers.network("2001:db8::1") == peers.network("2001:db8::2")
    assert peers.network("::ffff:192.0.2.1") == "192.0.2.1" != peers.network("::ffff:192.0.2.2")


def test_without_a_password_it_answers_to_its_own_names_only(served):
    assert served.get("/api/session", host="localhost:99")[0] == 200
    assert served.get("/api/session", host="evil.example")[0] == 421
    assert served.get("/api/session", host="127.0.0.1.evil.example")[0] == 421


def test_a_request_from_another_site_changes_nothing(served):
    cookie, csrf = linked(served)
    ours = {"cookie": cookie, "x_csrf_token": csrf}
    for headers in ({"origin": "https://evil.example"}, {"sec_fetch_site": "cross-site"}):
        assert served.get("/api/logout", "POST", {}, **headers, **ours)[0] == 403
        assert served.get("/api/live?mel=1", **headers, **ours)[0] == 403  # nor takes a page
    host = str(served.web.address).partition("://")[2]
    ours |= {"host": host, "origin": f"http://{host}"}
    assert served.get("/api/logout", "POST", {}, **ours)[0] == 200


def linked(served) -> tuple[str, str]:
    """Open the link that is printed; return the session's cookie and CSRF token."""
    path = served.web.link.removeprefix(served.web.address)
    status, _, headers = served.get(path)
    assert (status, headers["location"]) == (303, "/")
    assert {"HttpOnly", "SameSite=Strict"} <= set(headers["set-cookie"].split("; "))
    cookie = headers["set-cookie"].partition(";")[0]
    return cookie, served.get("/api/session", cookie=cookie)[1]["csrf"]


def test_who_has_not_opened_the_link_hears_nothing_and_changes_nothing(served, tmp_path):
    event = f"/api/events/{SESSION}-kitchen-0"
    seen = served.get("/api/state")[1]
    assert (seen["spectrogram"], "the link" in seen["no_spectrogram"]) == (False, True)
    assert seen["sources"]["kitchen"]["hops"]  # in words all of it
    assert not served.get("/api/session")[1]["trusted"]
    for method, path in (("POST", "mark"), ("DELETE", "mark")):
        status, found, _ = served.get(f"{event}/{path}", method, {"verdict": "right"})
        assert (status, "the link" in found["error"]) == (403, True)
    assert served.get(f"{event}/clip")[0] == 404
    assert served.get("/?key=wrong")[0] == 403
    assert served.get("/?key=")[0] == 200

    cookie, csrf = linked(served)
    assert served.get("/api/state", cookie=cookie)[1]["spectrogram"]
    assert served.get("/api/session", cookie=cookie)[1]["trusted"]
    assert served.get(f"{event}/mark", "DELETE", cookie=cookie)[0] == 403  # without the token
    found = served.get(f"{event}/mark", "DELETE", cookie=cookie, x_csrf_token=csrf)
    assert found[0] == 404  # it is not marked
    key = served.web.link.partition("key=")[2]
    assert served.get("/api/state", authorization=f"bearer {key}")[1]["spectrogram"]


def test_letters_of_any_language_in_an_address(served):
    for path in ("/?x=%C3%BC", "/history?label=M%C3%B6we", "/?key=M%C3%B6we"):
        assert served.get(path)[0] == (403 if "key" in path else 200)
    assert served.get("/api/events?label=M%C3%B6we")[1]["total"] == 0


def test_a_page_whose_key_cannot_be_kept_has_one_for_the_run(monkeypatch, caplog):
    monkeypatch.setenv("STREAMTWL_STATE", "/proc/nothing")
    first, second = (make(WebSettings(address="8765")) for _ in range(2))
    assert first._key != second._key
    assert "the page's key is for this run only" in caplog.text


def test_strangers_leave_room_for_who_may_hear():
    hub = Hub()
    opened = [hub.open(False, of=f"10.0.0.{number}") for number in range(40)]
    assert [page is not None for page in opened] == [True] * 32 + [False] * 8
    assert hub.open(True, trusted=True, of="10.0.0.1") is not None


def test_a_page_that_is_started_again_has_the_same_link(tmp_path, monkeypatch):
    monkeypatch.setenv("STREAMTWL_STATE", str(tmp_path))
    first, second = (make(WebSettings(address="8765")) for _ in range(2))
    assert first._key == second._key
    [file] = (tmp_path / "services").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o644)
    with pytest.raises(UsageError, match="others can read it"):
        make(WebSettings(address="8765"))


def test_a_session_that_ends_ends_its_stream(protected):
    with contextlib.closing(protected.connect()) as connection:
        _, _, headers = protected.get("/api/login", "POST", {"password": SECRET})
        cookie = headers["set-cookie"].partition(";")[0]
        csrf = protected.get("/api/session", cookie=cookie)[1]["csrf"]
        connection.request("GET", "/api/live", headers={"cookie": cookie})
        stream = connection.getresponse()
        assert stream.readline() == b"event: all\n"
        assert protected.get("/api/logout", "POST", {}, cookie=cookie, x_csrf_token=csrf)[0] == 200
        protected.story.status(60 * HOP)
        stream.read()  # to its end


@pytest.fixture
def own(tmp_path):
    """A page of the test's own."""
    with serving(tmp_path) as one:
        tell(one.story)
        one.told()
        yield one


def test_connections_are_bounded_and_those_that_say_nothing_end(own, monkeypatch):
    monkeypatch.setattr(connections, "LOOK_S", 0.01)
    monkeypatch.setattr(connections, "REQUEST_S", 0.1)
    with contextlib.ExitStack() as stack:
        for sent in (b"", b"GET / HT", b"POST /api/login HTTP/1.1\r\nHost: localhost\r\n"
                     b"Content-Length: 9\r\n\r\n{"):  # fmt: skip
            raw = stack.enter_context(socket.create_connection(_peer(own)))
            raw.sendall(sent)
            with contextlib.suppress(ConnectionResetError):
                while raw.recv(4096):
                    pass
    monkeypatch.setattr(connections, "REQUEST_S", 1000.0)
    with contextlib.ExitStack() as stack:
        listening = own.web._listening
        before = listening.refused
        silent = [
            stack.enter_context(socket.create_connection(_peer(own)))
            for _ in range(connections.OF_ONE + 10)
        ]
        own.wait(lambda: listening.refused >= before + 10)
        silent.pop(0).close()
    own.wait(lambda: answers(own))


def answers(served) -> bool:
    with contextlib.suppress(OSError, http.client.HTTPException):
        return served.get("/api/session")[0] == 200
    return False


def test_an_answer_that_is_not_read_is_given_up(own, monkeypatch):
    monkeypatch.setattr(connections, "LOOK_S", 0.01)
    monkeypatch.setattr(connections, "UNREAD_S", 0.3)
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.connect(_peer(own))
        raw.setblocking(False)
        request = b"GET /api/state HTTP/1.1\r\nHost: localhost\r\n\r\n"
        with contextlib.suppress(BlockingIOError):  # more than the kernel's buffers take
            for _ in range(2000):
                raw.sendall(request)
        raw.setblocking(True)

        def reset() -> bool:
            try:
                raw.send(b"x", socket.MSG_DONTWAIT)
            except BlockingIOError:
                return False
            except OSError:
                return True
            return False

        own.wait(reset)


def test_what_strangers_do_is_said_once(own, caplog):
    for _ in range(20):
        with socket.create_connection(_peer(own)) as raw:
            raw.sendall(b"nonsense\r\n\r\n")
            raw.recv(4096)
        with socket.create_connection(_peer(own)) as raw:  # cut off in its body
            raw.sendall(
                b"POST /api/login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{"
            )
    for _ in range(600):
        own.get("/api/session")
    own.wait(lambda: "too many requests of 127.0.0.1" in caplog.text)
    own.wait(lambda: answers(own))
    assert len(caplog.records) <= 2


def test_too_long_a_request_is_refused(served):
    assert served.get("/api/login", "POST", "x" * 70_000)[0] == 413
    with socket.create_connection(_peer(served)) as raw:
        raw.sendall(
            b"POST /api/login HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        chunk = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
        try:
            for _ in range(20):
                raw.sendall(chunk)
            answer = raw.recv(100)
        except ConnectionError:
            answer = b""
    assert b"200" not in answer


def _peer(served) -> tuple[str, int]:
    host, _, port = str(served.web.address).partition("://")[2].rpartition(":")
    return host, int(port)


def test_with_a_password_nothing_is_seen_without_it(protected):
    for path in ("/api/state", "/api/events", "/api/live", "/api/openapi.json", "/api/nothing"):
        assert protected.get(path)[0] == 401, path
    status, _, headers = protected.get("/")
    assert (status, headers["location"]) == (303, "/login")
    assert protected.get("/login")[0] == 200
    assert protected.get("/assets/style.css")[0] == 200
    assert protected.get("/assets/../api/state")[0] in (401, 404)


def test_a_session_begins_with_the_password_and_ends(protected):
    assert protected.get("/api/login", "POST", {"password": "wrong"})[0] == 403
    assert protected.get("/api/login", "POST", {"nonsense": 1})[0] == 400
    status, _, headers = protected.get("/api/login", "POST", {"password": SECRET})
    cookie = headers["set-cookie"]
    assert status == 200
    assert {"HttpOnly", "SameSite=Strict"} <= set(cookie.split("; "))
    named = cookie.partition(";")[0]
    _, session, _ = protected.get("/api/session", cookie=named)
    assert session["password"]
    assert protected.get("/api/logout", "POST", {}, cookie=named)[0] == 403  # no CSRF token
    assert protected.get("/api/logout", "POST", {}, cookie=named, x_csrf_token="x")[0] == 403
    given = {"cookie": named, "x_csrf_token": session["csrf"]}
    assert protected.get("/api/logout", "POST", {}, **given)[0] == 200
    assert protected.get("/api/session", cookie=named)[0] == 401
    assert protected.get("/api/session", cookie="streamtwl_session=\u00ff")[0] == 401


def test_a_program_sends_a_token_and_nothing_else(protected):
    allowed = {"authorization": f"Bearer {TOKEN}"}
    assert protected.get("/api/state", **allowed)[0] == 200
    assert protected.get("/api/events/none/mark", "POST", {"verdict": "right"}, **allowed)[0] == 400
    for path, given in (
        ("/api/state", f"Bearer {TOKEN}x"),
        ("/api/state", "Bearer "),
        ("/api/state", f"Bearer {SECRET}"),
        ("/api/state", f"Basic {TOKEN}"),
    ):
        assert protected.get(path, authorization=given)[0] == 401, given
    assert protected.get("/", **allowed)[0] == 303  # pages are for people
    assert protected.get("/api/state")[0] == 401  # it began no session


@pytest.mark.parametrize("token", ["", "Bearer", "\u00fc"])
def test_without_a_token_of_its_own_none_fits(token):
    scope = {"type": "http", "method": "GET", "path": "/api/state", "client": ("127.0.0.1", 1)}
    given = {"authorization": f"Bearer {token}"}
    assert Access(Password(SECRET))._refusal(scope, given)[0] == 401


def test_guessing_is_slowed_down(protected):
    answers = [protected.get("/api/login", "POST", {"password": str(i)}) for i in range(8)]
    assert [status for status, _, _ in answers].count(429) >= 2
    assert int(answers[-1][2]["retry-after"]) >= 1
    assert protected.get("/api/login", "POST", {"password": SECRET})[0] == 429


def test_one_who_guesses_locks_nobody_else_out(monkeypatch):
    monkeypatch.setitem(access.SCRYPT, "n", 2**4)
    gate = Access(Password(SECRET))

    async def log_in(address: str, password: str) -> tuple[str | None, float]:
        return await gate.login({"state": {"address": address}}, password)

    async def run() -> tuple[str | None, float]:
        for number in range(100):  # addresses of one network
            await log_in(f"2001:db8::{number:x}", "a guess")
        return await log_in("192.0.2.1", SECRET)

    token, _ = asyncio.run(run())
    assert token is not None


def test_sessions_are_bounded_and_end(monkeypatch):
    monkeypatch.setitem(access.SCRYPT, "n", 2**4)
    gate = Access(Password(SECRET))
    gate._logins = gate._all_logins = peers.Buckets(1e6, 1e6)
    state = {"path": "/api/state", "state": {"address": "10.0.0.1", "cookie": "named"}}

    async def log_in() -> list[str]:
        return [(await gate.login(state, SECRET))[0] for _ in range(access.SESSIONS + 10)]

    tokens = asyncio.run(log_in())
    seen = [gate._without_session(state, {"cookie": f"named={each}"}, False) for each in tokens]
    assert [each is None for each in seen] == [False] * 10 + [True] * access.SESSIONS
    gate._sessions[tokens[-1]].until = time.monotonic() - 1
    assert gate._without_session(state, {"cookie": f"named={tokens[-1]}"}, False)[0] == 401
    assert tokens[-1] not in gate._sessions


def test_only_the_proxy_that_is_named_may_connect(tmp_path):
    settings = WebSettings(address="127.0.0.1:0", proxy="::ffff:127.0.0.1", names=["Ears.example"])
    with serving(tmp_path, settings) as through:
        given = {"host": "ears.example", "x_forwarded_for": "203.0.113.9"}
        assert through.get("/api/session", **given)[0] == 200
        assert not through.get("/api/state", **given)[1]["spectrogram"]  # others may see it
        # a browser on the proxy's machine that was led here under another name
        assert through.get("/api/session", **given | {"host": "evil.example"})[0] == 421
        assert through.get("/api/session", host="ears.example")[0] == 403
    (tmp_path / "b").mkdir()
    settings = WebSettings(address="127.0.0.1:0", proxy="203.0.113.1", names=["127.0.0.1"])
    with serving(tmp_path / "b", settings) as beside:
        assert beside.get("/api/session", x_forwarded_for="203.0.113.1")[0] == 403


@pytest.mark.parametrize(
    ("header", "address"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("evil, 203.0.113.9", "203.0.113.9"),
        ("203.0.113.9:5555", "203.0.113.9"),
        ("[2001:db8::1]:5555", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("", ""),
    ],
)
def test_whom_a_proxy_asks_for(header, address):
    assert peers.forwarded_for(header) == address


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"address": "0.0.0.0:8765"}, "others reach this address: set a password"),
        ({"address": "*:8765"}, "others reach this address"),
        ({"address": "[::]:8765"}, "others reach this address"),
        ({"address": "127.0.0.1"}, "it takes [HOST:]PORT"),
        ({"address": "127.0.0.1:99999"}, "it takes [HOST:]PORT"),
        ({"address": "8765", "proxy": "ears.example"}, "it takes an IP address"),
        ({"address": "8765", "proxy": "127.0.0.1"}, "takes names, too"),
        ({"address": "a..b:8765"}, "is no name of a host"),
        ({"address": f"{'a' * 64}:8765"}, "is no name of a host"),
        ({"address": "8765", "certificate": "nowhere.pem"}, "No such file"),
        ({"address": "8765", "certificate": "a\0b"}, "null"),
        ({"address": "8765", "password_file": "nowhere"}, "No such file"),
        ({"address": "8765", "certificate_key": "key.pem"}, "it takes a certificate, too"),
    ],
)
def test_settings_that_would_not_protect_it_are_refused(settings, problem, monkeypatch):
    monkeypatch.delenv("STREAMTWL_WEB_PASSWORD", raising=False)
    with pytest.raises(UsageError, match=re.escape(problem)) as raised:
        make(WebSettings(**settings))
    assert str(raised.value).isprintable()


def test_a_token_that_would_not_protect_it_is_refused(monkeypatch):
    monkeypatch.setenv("STREAMTWL_WEB_TOKEN", TOKEN)
    with pytest.raises(UsageError, match="takes a password, too"):
        make(WebSettings(address="8765"))
    monkeypatch.setenv("STREAMTWL_WEB_PASSWORD", SECRET)
    monkeypatch.setenv("STREAMTWL_WEB_TOKEN", TOKEN[1:])
    with pytest.raises(UsageError, match="20 characters or more"):
        make(WebSettings(address="8765"))


def test_a_password_file_is_its_owners_alone(tmp_path, monkeypatch):
    monkeypatch.setitem(access.SCRYPT, "n", 2**4)
    file = tmp_path / "password"
    settings = WebSettings(address="0.0.0.0:0", password_file=str(file))
    for content, mode, problem in (("x", 0o644, "chmod 600"), ("\nx", 0o600, "line is empty")):
        file.write_text(content)
        file.chmod(mode)
        with pytest.raises(UsageError, match=problem):
            make(settings)
    file.write_text("x")
    make(settings)
    monkeypatch.setenv("STREAMTWL_WEB_PASSWORD", SECRET)
    make(WebSettings(address="0.0.0.0:0"))


def test_an_address_in_use_is_said(tmp_path, served):
    with pytest.raises(SinkError, match="in use"):
        asyncio.run(
            make(WebSettings(address=str(served.web.address).partition("://")[2])).run(
                _feed("tcp://127.0.0.1:1")
            )
        )


def _feed(connect: str):
    from streamtwl.services.service import Feed

    return Feed(connect)


def test_tls_files(tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("no openssl: apt-get install openssl")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-keyout", key, "-out", certificate, "-days", "2", *subject],
        check=True, capture_output=True,
    )  # fmt: skip
    settings = WebSettings(
        address="127.0.0.1:0", certificate=str(certificate), certificate_key=str(key)
    )
    with serving(tmp_path, settings) as encrypted:
        trusting = ssl.create_default_context(cafile=str(certificate))
        address = f"{encrypted.web.address}/api/session"
        with urllib.request.urlopen(address, context=trusting) as answer:
            assert answer.status == 200
            assert "strict-transport-security" not in answer.headers  # it binds other ports too
    (tmp_path / "c").mkdir()
    key.chmod(0o644)
    with pytest.raises(UsageError, match="anybody can read it"):
        make(settings)
    key.chmod(0o600)
    web = make(settings)
    good = key.read_text()
    key.write_text("nonsense")
    with pytest.raises(UsageError, match="certificate"), serving(tmp_path / "c", settings):
        pass
    with pytest.raises(SinkError, match="certificate"):  # later: it is tried again
        asyncio.run(web.run(_feed("tcp://127.0.0.1:1")))
    key.write_text(good)
    secret = ["openssl", "ec", "-aes256", "-passout", "pass:x", "-in", key, "-out", key]
    subprocess.run(secret, check=True, capture_output=True)
    with pytest.raises(UsageError, match="the key takes a password"):
        make(settings)


# --- what it survives ---


def test_a_page_that_never_reads_holds_nobody_up(tmp_path):
    """Twenty pages, one of which never reads: the others get every event, its queue is bounded."""
    with serving(tmp_path) as crowded:
        tell(crowded.story)
        crowded.told()
        peers = [socket.create_connection(_peer(crowded)) for _ in range(20)]
        try:
            for peer in peers:
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                peer.sendall(b"GET /api/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            pages = crowded.web._hub.pages
            crowded.wait(lambda: len(pages) == 20)
            received = [b""] * 19
            long = "x" * 20_000
            for number in range(3, 700):
                crowded.story.event(number, "onset", number * HOP, None, long)
                for i, peer in enumerate(peers[1:]):
                    peer.setblocking(False)
                    try:
                        while piece := peer.recv(1 << 20):
                            received[i] = (received[i] + piece)[-100:]
                    except BlockingIOError:
                        continue
            crowded.story.status(61 * HOP)
            crowded.told()
            stuck = [page for page in pages if page.missed]
            assert len(stuck) >= 1
            assert all(len(page._waiting) <= QUEUE for page in pages)
            assert crowded.web.figures()["dropped"] == sum(page.missed for page in pages)
            assert crowded.get("/api/session")[0] == 200
        finally:
            for peer in peers:
                peer.close()
        crowded.wait(lambda: not crowded.web._hub.pages)


def test_a_page_gets_what_was_and_then_what_comes(served):
    with socket.create_connection(_peer(served)) as peer:
        peer.sendall(b"GET /api/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        lines = peer.makefile("rb")
        kinds = []
        while "event" not in kinds:
            line = lines.readline()
            if line.startswith(b"event: "):
                kinds.append(line.split()[1].decode())
            if kinds == ["all"]:
                served.story.event(7, "onset", 70 * HOP, None, "Cat")
                served.story.event(7, "revised", 70 * HOP, 70 * HOP, "Cat")
                kinds.append("-")
    assert kinds[0] == "all"


def test_an_event_of_a_recording_is_dated_by_its_onset_whatever_comes_later():
    """As `streamtwl history` dates it: there is no other clock."""
    hub = Hub()
    for seq, at in enumerate((100.0, 103.0, 105.0)):
        hub.take(msgspec.structs.replace(event_message(seq), published_at=at))
    [shown] = hub.snapshot()["sources"]["mic"]["events"]
    assert shown["began_at"] == 100.0


def test_a_new_session_of_a_source_begins_anew():
    hub = Hub()
    for session in ("one", "two"):
        hub.take(label_message(0, session))
    [hop] = hub.snapshot()["sources"]["mic"]["hops"]
    assert hop["session"] == "two"


def test_a_source_of_which_nothing_comes_is_away_until_something_does(monkeypatch):
    """A listener that was killed says no goodbye."""
    monkeypatch.setattr(live, "LOOK_S", 0.001)
    monkeypatch.setattr(live, "AWAY_S", 1000.0)
    hub = Hub()
    for source in ("killed", "alive"):
        hub.take(msgspec.structs.replace(label_message(0), source=source))
    page = hub.open(wants_frames=False)
    hub.sources["killed"].received_at -= 1200.0

    async def news() -> bytes:
        watching = asyncio.create_task(hub.watch())
        had = b""
        while b"event: away" not in had:
            had += await page.take(60.0)
        watching.cancel()
        return had.partition(b"event: away")[2]

    assert b'{"source":"killed","away_s":1200.' in asyncio.run(news())
    away = {name: each["away_s"] for name, each in hub.snapshot()["sources"].items()}
    assert away["killed"] >= 1200.0
    assert away["alive"] is None
    hub.take(msgspec.structs.replace(label_message(1), source="killed"))
    assert hub.snapshot()["sources"]["killed"]["away_s"] is None


@pytest.mark.parametrize("kept_s", [1000.0, 0.0])
def test_a_page_that_is_loaded_again_has_what_was_drawn(monkeypatch, kept_s):
    answer = Answer(mel=bytes(64), position=0, next=160)
    monkeypatch.setattr(live.client, "mel", lambda *_: answer)
    monkeypatch.setattr(live, "DRAW_S", 0.001)
    monkeypatch.setattr(live, "KEPT_S", kept_s)
    hub = Hub()
    hub.begin(dict, spectrogram=True)
    hub.take(label_message(0))

    async def run() -> bytes:
        drawing = asyncio.create_task(hub.draw())
        first = hub.open(wants_frames=True, trusted=True)
        while not hub._drawn:
            await asyncio.sleep(0.001)
        hub.close(first)
        for _ in range(20):  # looks, while no page is there
            await asyncio.sleep(0.001)
        while not kept_s and hub._drawn:
            await asyncio.sleep(0.001)
        drawing.cancel()
        return await hub.open(wants_frames=True, trusted=True).take(60.0)

    assert (b"event: mel" in asyncio.run(run())) is bool(kept_s)


def test_frames_of_a_new_session_and_of_other_sources_go_on(monkeypatch):
    wanted = []

    def mel(source: str, since: int, _most: int, session: str) -> Answer:
        wanted.append((source, session, since))
        if source == "gone":
            raise ControlError("no source is called 'gone'")
        return Answer(mel=bytes(64), position=since, next=since + 160_000)

    monkeypatch.setattr(live.client, "mel", mel)
    monkeypatch.setattr(live, "DRAW_S", 0.001)
    hub = Hub()
    hub.begin(dict, spectrogram=True)

    async def run() -> None:
        drawing = asyncio.create_task(hub.draw())
        hub.open(wants_frames=True, trusted=True)
        hub.take(msgspec.structs.replace(label_message(0, "a"), source="gone"))
        for session in ("a", "b"):
            hub.take(msgspec.structs.replace(label_message(0, session), source="here"))
            want = ("here", session, 160_000)
            async with asyncio.timeout(live.RETRY_S):  # the one that is gone is not waited for
                while want not in wanted:
                    await asyncio.sleep(0.001)
        drawing.cancel()

    asyncio.run(run())
    assert ("here", "b", 0) in wanted
    assert wanted.count(("gone", "a", 0)) == 1


def test_too_many_pages_are_refused():
    hub = Hub()
    assert all(hub.open(False, trusted=True, of=f"10.0.0.{page // 32}") for page in range(64))
    assert hub.open(False, trusted=True, of="10.0.0.2") is None


def test_one_network_cannot_have_all_pages():
    hub = Hub()
    assert all(hub.open(False, trusted=True, of="10.0.0.1") for _ in range(32))
    assert hub.open(False, trusted=True, of="10.0.0.1") is None
    assert hub.open(False, trusted=True, of="10.0.0.2") is not None


def test_a_page_that_opens_while_the_service_ends_ends_too():
    hub = Hub()
    hub.end()
    assert asyncio.run(hub.open(False).take(60.0)) is None


def test_beside_a_listener_elsewhere_it_says_that_it_has_no_history(tmp_path, monkeypatch):
    monkeypatch.setattr("streamtwl.services.web.page.is_local", lambda endpoint: ":0" in endpoint)
    with serving(tmp_path) as away:
        tell(away.story)
        away.told()
        status, found, _ = away.get("/api/events")
        assert status == 404
        assert "another machine" in found["error"]
        assert not away.get("/api/state")[1]["spectrogram"]
        assert away.get("/api/settings")[1]["sounds"] is None


def test_beside_a_listener_elsewhere_it_keeps_a_journal_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr("streamtwl.services.web.page.is_local", lambda endpoint: ":0" in endpoint)
    own = tmp_path / "own.sqlite"
    with serving(tmp_path, WebSettings(address="127.0.0.1:0", journal=str(own))) as away:
        tell(away.story)
        away.told()
        away.wait(lambda: own.exists())
        away.wait(lambda: away.get(f"/api/events?since={time.time() - 7200}")[1].get("total") == 2)
    ours, theirs = ([*history.events(path, Wanted())] for path in (own, away.journal))
    assert [each.id for each in ours] == [each.id for each in theirs]


def test_without_a_journal_it_says_so(served, tmp_path):
    absent = api.Past(tmp_path / "none.sqlite", None, False)
    with pytest.raises(Exception, match="there is no journal"):
        asyncio.run(absent.events(0.0, 1.0))


def test_decisions_that_are_damaged_are_passed_over():
    from streamtwl.messages import encode

    hops = Hops([b"\xc1", b"{", encode(label_message(0)), encode(label_message(1), "json"), b""])
    assert hops.events("", 0.5, 0.2)["hops"] == 2
