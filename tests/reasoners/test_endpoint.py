"""A language model's server, well and in every wrong way, over real connections."""

import asyncio
import gzip
import json
import logging
import threading

import msgspec
import pytest

from streamtwl.errors import EndpointError, UsageError
from streamtwl.reasoners import transport
from streamtwl.reasoners.endpoint import Endpoint
from streamtwl.reasoners.prompts import preset, request_fields
from streamtwl.reasoners.server import address_of, key_for
from tests.conftest import PATIENCE_S
from tests.language_model_server import (
    drips,
    floods,
    hangs,
    hangs_up,
    language_model,
    names,
    repeats,
    says,
    sends,
)
from tests.network_servers import free_port

KEY = "sk-not-for-anybodys-eyes"
SOON_S = 0.3  # after which a server that does not answer is given up
OPTIONS = ["dog", "siren", "none of these"]
MESSAGES = [{"role": "user", "content": "what is it?"}]
UNREACHED = "http://127.0.0.1:1/v1"  # no one listens there


def connect(
    url: str, timeout_s: float = PATIENCE_S, name: str = "chat", key: str = KEY, **changes
) -> Endpoint:
    chosen = msgspec.structs.replace(preset(name), model="m", **changes)
    return Endpoint(address_of(url), chosen, request_fields(chosen, ""), timeout_s, key)


def refusal(*acts, timeout_s: float = PATIENCE_S, **changes) -> EndpointError:
    """Return the error of a server that acts like this."""
    with language_model(*acts) as server, pytest.raises(EndpointError) as raised:
        connect(server.url, timeout_s, **changes).choose(MESSAGES, OPTIONS)
    said = str(raised.value)
    assert said.isprintable()
    assert len(said) < 300
    assert KEY not in said + repr(raised.value)
    return raised.value


# --- it answers ---


def test_a_chat_model_gets_the_prompt_the_settings_and_the_options_as_a_schema():
    with language_model(names("siren", reasoning_content="It wails.")) as server:
        answer = connect(server.url).choose(MESSAGES, OPTIONS, seed=7)
    assert (answer.option, answer.thought) == ("siren", "It wails.")
    [sent] = server.requests
    assert server.paths == ["/v1/chat/completions"]
    assert (sent["model"], sent["messages"], sent["seed"]) == ("m", MESSAGES, 7)
    assert sent.items() >= preset("chat").sampling.items()
    schema = sent["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["label"]["enum"] == OPTIONS
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("act", "thought"),
    [
        (names("Siren"), ""),
        (names("siren", reasoning="hm"), "hm"),
        (says('<think>It\nwails.</think>\n{"label": "siren"}'), "It\nwails."),
        (says('```json\n{"label": "siren"}\n```'), ""),
        (says(" siren.\n"), ""),
    ],
)
def test_a_label_is_found_in_every_dress(act, thought):
    with language_model(act) as server:
        answer = connect(server.url).choose(MESSAGES, OPTIONS)
    assert (answer.option, answer.thought) == ("siren", thought)
    assert len(server.requests) == 1


def test_an_answer_that_is_no_label_is_requested_once_more():
    with language_model(names("cat"), names("dog")) as server:
        assert connect(server.url).choose(MESSAGES, OPTIONS, 4).option == "dog"
    assert [sent["seed"] for sent in server.requests] == [4, 5]


def test_an_address_without_a_path_is_that_of_its_v1():
    with language_model(names("dog")) as server:
        connect(server.url.removesuffix("/v1")).choose(MESSAGES, OPTIONS)
        connect(server.url.replace("/v1", "/other/")).choose(MESSAGES, OPTIONS)
    assert server.paths == ["/v1/chat/completions", "/other/chat/completions"]


def test_a_base_model_is_held_to_the_labels_by_a_grammar():
    with language_model(says(" siren")) as server:
        answer = connect(server.url, name="base").choose("Label:", ["dog", 'a "b"', "siren"])
    assert answer.option == "siren"
    [sent] = server.requests
    assert server.paths == ["/v1/completions"]
    assert sent["grammar"] == 'root ::= " dog" | " a \\"b\\"" | " siren"'
    assert sent["prompt"] == "Label:"


def test_a_base_model_on_vllm_is_held_to_them_by_a_choice():
    with language_model(says(" dog")) as server:
        connect(server.url, name="base", choose="choice").choose("Label:", ["dog", "siren"])
    assert server.requests[0]["structured_outputs"] == {"choice": [" dog", " siren"]}


def scores(**of_option: float):
    """Give each option's two tokens their log-probabilities, and the prompt's and what follows."""

    def act(to, body):
        prompt, _, option = body["prompt"].rpartition(" ")
        offsets = [0, len(prompt), len(prompt) + 2, len(body["prompt"])]
        each = of_option[option] / 2
        found = {"text_offset": offsets, "token_logprobs": [None, each, each, -99.0]}
        reply = {"choices": [{"text": body["prompt"], "logprobs": found}]}
        sends(msgspec.json.encode(reply).decode())(to, body)

    return act


def test_the_option_of_the_highest_log_probability_is_chosen():
    with language_model(scores(dog=-7.0, siren=-3.0, rain=-5.0)) as server:
        model = connect(server.url, name="base", choose="logprob")
        assert model.choose("Label:", ["dog", "siren", "rain"]).option == "siren"
    assert all(sent["echo"] for sent in server.requests)
    assert len(server.requests) == 3


def test_a_server_without_log_probabilities_says_what_to_set_instead():
    with language_model(says(" dog")) as server, pytest.raises(EndpointError) as raised:
        connect(server.url, name="base", choose="logprob").choose("Label:", ["dog"])
    problem = raised.value
    assert 'choose = "grammar"' in str(problem)
    assert not problem.passing


# --- it does not ---


def test_a_server_that_is_down():
    with pytest.raises(EndpointError, match="cannot be reached") as raised:
        connect(f"http://127.0.0.1:{free_port()}/v1").choose(MESSAGES, OPTIONS)
    assert raised.value.passing


@pytest.mark.parametrize(
    "act",
    [hangs(), hangs(b'{"choices": ['), drips],
    ids=["no reply", "hangs in the body", "drips"],
)
def test_a_server_that_is_slow_is_given_up(act):
    assert f"within {SOON_S:g} s" in str(refusal(act, timeout_s=SOON_S))


@pytest.mark.parametrize("act", [hangs_up, floods], ids=["hangs up", "floods"])
def test_a_reply_that_breaks_off_or_never_ends(act):
    assert "cannot be reached" in str(refusal(act))


def test_a_flood_ends_at_the_limit():
    assert str(transport.LIMIT) in str(refusal(floods))


def compressed(to, _body):
    """Send an answer compressed, which was not requested: a few bytes can become gigabytes."""
    body = gzip.compress(in_a_choice('{"label": "dog"}').encode())
    to.send_response(200)
    to.send_header("Content-Encoding", "gzip")
    to.send_header("Content-Length", str(len(body)))
    to.end_headers()
    to.wfile.write(body)


def test_what_is_compressed_is_not_unpacked():
    assert "no answer of such a server" in str(refusal(compressed))


@pytest.mark.parametrize("status", [200, 400, 500])
@pytest.mark.parametrize("charset", ["hex", "rot13", "idna", "no-such", "utf-16"])
def test_what_no_charset_decodes_is_one_line(charset, status):
    act = sends("oh no", status, Content_Type=f"text/plain; charset={charset}")
    assert "oh no" in str(refusal(act))


@pytest.mark.parametrize(("header", "pause_s"), [("7", 7), ("99999", 600), ("soon", 0), ("", 0)])
def test_429_says_how_long_to_wait(header, pause_s):
    problem = refusal(sends("{}", 429, Retry_After=header))
    assert "429" in str(problem)
    assert (problem.retry_after_s, problem.passing) == (pause_s, True)


@pytest.mark.parametrize(
    ("status", "body", "words", "passing"),
    [
        (500, "<html>oh\n\x1b[31mno</html>", ["500", "oh"], True),
        (500, "", ["500"], True),
        (503, '{"error": {"message": "loading"}}', ["503", "loading"], True),
        (404, '{"error": {"message": "no model m"}}', ["404", "no model m"], False),
        (400, '{"error": "' + "x" * 5000 + '"}', ["400"], False),
        (400, f'{{"error": {{"message": "bad key {KEY}"}}}}', ["***"], False),
        (400, "[" * 50_000, ["400"], False),
        (401, f'{{"error": {{"message": "wrong key {KEY[:9]}"}}}}', ["OPENAI_API_KEY"], False),
    ],
)
def test_a_refusal_is_one_line(status, body, words, passing):
    problem = refusal(sends(body, status))
    assert all(word in str(problem) for word in words), problem
    assert KEY[:9] not in str(problem)
    assert problem.passing == passing


@pytest.mark.parametrize(
    "act",
    [
        sends("I am a teapot"),
        sends(""),
        sends("{}"),
        sends("[1]"),
        sends('{"choices": []}'),
        sends('{"choices": 3}'),
        sends('{"choices": [{"message": {"content": 3}}]}'),
        sends("\xff\xfe", Content_Type="application/json"),
        sends("[" * 100_000),
        sends('{"choices": [{}]}'),
        says(None),
        says(""),
        says("I think it is a dog or a siren."),
        names("cat"),
        names("dog; siren"),
        says('{"label": 3}'),
        says('{"label": "cat\\n\\u001b[31m' + "x" * 9000 + '"}'),
    ],
)
def test_nonsense_is_refused_after_a_second_try(act):
    with language_model(act) as server, pytest.raises(EndpointError) as raised:
        connect(server.url).choose(MESSAGES, OPTIONS)
    assert len(server.requests) == 2
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 300


def test_an_answer_that_was_cut_off_while_it_thought_says_so():
    cut = sends('{"choices": [{"message": {"content": ""}, "finish_reason": "length"}]}')
    assert "lower effort" in str(refusal(cut))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(status):
    with language_model(names("dog")) as other:
        problem = refusal(sends("", status, Location=f"{other.url}/chat/completions"))
    assert "redirects" in str(problem)
    assert other.requests == []


# --- where it goes, and what goes along ---


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"])
def test_a_proxy_of_the_environment_sees_nothing(variable, monkeypatch):
    with language_model(names("dog")) as proxy, language_model(names("siren")) as server:
        monkeypatch.setenv(variable, f"http://127.0.0.1:{proxy.port}")
        for off in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(off, raising=False)
        assert connect(server.url).choose(MESSAGES, OPTIONS).option == "siren"
    assert proxy.requests == []


def test_nothing_of_the_environment_or_the_system_goes_along(monkeypatch):
    for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_ADMIN_KEY"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Mine: secret")
    monkeypatch.setenv("OPENAI_BASE_URL", UNREACHED)
    with language_model(names("dog")) as server:
        connect(server.url).choose(MESSAGES, OPTIONS)
    [headers] = server.headers
    assert set(headers) <= transport.HEADERS
    assert "secret" not in str(headers)
    assert headers["user-agent"] == "streamtwl"


def test_without_a_key_none_is_sent():
    with language_model(names("dog")) as server:
        chosen = msgspec.structs.replace(preset("chat"), model="m")
        Endpoint(address_of(server.url), chosen, {}, PATIENCE_S).choose(MESSAGES, OPTIONS)
    assert "authorization" not in server.headers[0]


def test_neither_key_nor_path_is_in_a_log_or_a_repr(caplog):
    for name in (None, "openai", "httpx2", "httpcore2"):  # as with OPENAI_LOG=debug
        caplog.set_level(logging.DEBUG, name)
    with language_model(sends("{}", 500), names("dog")) as server:
        model = connect(f"{server.url}/a-secret-path")
        with pytest.raises(EndpointError):
            model.choose(MESSAGES, OPTIONS)
        model.choose(MESSAGES, OPTIONS)
    logged = caplog.text + "".join(repr(vars(each)) for each in caplog.records)
    for secret in (KEY, "a-secret-path"):
        assert secret not in logged + repr(model) + repr(model.address)


def in_a_choice(authorization: str, **more: str) -> str:
    return json.dumps({"choices": [{"message": {"content": authorization} | more}]})


@pytest.mark.parametrize(
    "content",
    [
        lambda said: json.dumps({"headers": {"Authorization": said}}),
        lambda said: json.dumps(said).replace("/", "\\/"),  # as PHP writes it
        in_a_choice,
    ],
    ids=["headers", "escaped", "a label"],
)
def test_a_key_that_the_server_repeats_is_not_shown(content):
    said = str(refusal(repeats(content), key="sk-not/for+anybodys=eyes"))
    assert "***" in said
    assert "anybodys" not in said


def test_a_key_that_the_server_repeats_is_not_in_what_it_thought():
    def content(authorization: str) -> str:
        return in_a_choice('{"label": "dog"}', reasoning=f"I got {authorization}.")

    with language_model(repeats(content)) as server:
        answer = connect(server.url).choose(MESSAGES, OPTIONS)
    assert answer.thought == "I got Bearer ***."


@pytest.mark.parametrize("key", ["none", "EMPTY", "dog"])
def test_a_word_in_the_place_of_a_key_hides_nothing(key):
    with language_model(names("none of these", reasoning=f"{key} fits")) as server:
        answer = connect(server.url, key=key).choose(MESSAGES, OPTIONS)
    assert (answer.option, answer.thought) == ("none of these", f"{key} fits")


@pytest.mark.parametrize(
    ("url", "variable", "key"),
    [
        ("https://models.example/v1", "", "usual"),
        ("http://127.0.0.1:8000/v1", "", "usual"),
        ("http://localhost:8000/v1", "", "usual"),
        ("http://[::1]:8000/v1", "", "usual"),
        ("http://gpu.example:8000/v1", "", ""),
        ("http://127.0.0.1.example/v1", "", ""),
        ("http://gpu.example:8000/v1", "GPU_KEY", "named"),
        ("https://models.example/v1", "GPU_KEY", "named"),
    ],
)
def test_the_usual_key_does_not_cross_a_network_in_the_clear(url, variable, key, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "usual")
    monkeypatch.setenv("GPU_KEY", "named")
    assert key_for(address_of(url), variable) == key


def test_a_variable_that_is_not_there_is_said(monkeypatch):
    monkeypatch.delenv("GPU_KEY", raising=False)
    with pytest.raises(UsageError, match="GPU_KEY"):
        key_for(address_of("https://models.example"), "GPU_KEY")


@pytest.mark.parametrize("key", ["sk-a\nb", "sk-é"])
def test_a_key_that_no_header_takes_is_refused_without_showing_it(key, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(UsageError) as raised:
        key_for(address_of("https://models.example"), "")
    assert key not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "", "127.0.0.1:8000", "ftp://host/v1", "http://", "http://a b/", "file:///etc/passwd",
        f"http://user:{KEY}@host/v1", f"https://host/v1?api_key={KEY}", f"{KEY}",
        "http://host:99999/v1", "http://[::1/v1", f"{KEY}@host/v1", "http://host/" + "a" * 70_000,
    ],
)  # fmt: skip
def test_an_address_that_is_none_is_one_line_without_its_secrets(url):
    with pytest.raises(UsageError) as raised:
        address_of(url)
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 300
    assert KEY[:8] not in str(raised.value)


# --- the end ---


def test_a_request_is_cancelled_from_another_thread():
    problems = []

    def request():
        try:
            model.choose(MESSAGES, OPTIONS)
        except EndpointError as error:
            problems.append(error)
        model.close()

    with language_model(hangs()) as server:
        model = connect(server.url)
        waiting = threading.Thread(target=request)
        waiting.start()
        assert server.received.wait(PATIENCE_S)
        model.cancel()
        waiting.join(PATIENCE_S)
        assert not waiting.is_alive()
    assert "cancelled" in str(problems[0])


def test_what_was_cancelled_requests_nothing_more():
    with language_model(names("dog")) as server:
        model = connect(server.url)
        model.cancel()
        with pytest.raises(EndpointError):
            model.choose(MESSAGES, OPTIONS)
    assert server.requests == []


def test_control_c_that_reaches_a_request_as_a_cancellation_is_control_c(monkeypatch):
    async def cancelled(*_):
        raise asyncio.CancelledError

    model = connect("http://127.0.0.1:1")
    monkeypatch.setattr(model, "_post", cancelled)
    with pytest.raises(KeyboardInterrupt):
        model.choose(MESSAGES, OPTIONS)
    model.close()
