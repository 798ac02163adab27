"""An OpenAI-compatible server of a language model: a prompt in, one of the options out.

The request goes to the address that the user named and nowhere else: no redirect is followed, and
no proxy from the environment is used. An answer has a time limit as a whole and at most so many
bytes. One request at a time.
"""

import asyncio
import contextlib
import json
import logging
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx2
import msgspec
import openai

from streamtwl.audio.network_address import Address
from streamtwl.errors import UNDECODABLE, EndpointError, NoLabelError
from streamtwl.file_names import one_line
from streamtwl.reasoners.prompts import Preset
from streamtwl.reasoners.server import KEY
from streamtwl.reasoners.transport import HEADERS, Daemons, Limited

THOUGHT = re.compile(r"\A\s*<think>(.*?)</think>", re.DOTALL)
SERVERS_WORDS = 160  # characters of a server's own error
LONGEST_PAUSE_S = 600.0
SECRET = 8  # characters of a key at least: "none" and "EMPTY", as some servers want, are words


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model chose, and what it thought, as far as it says."""

    option: str
    thought: str
    elapsed_s: float


class _Message(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None  # llama-server, older vLLM
    reasoning: str | None = None  # vLLM, Ollama


class _LogProbs(msgspec.Struct):
    token_logprobs: list[float | None]
    text_offset: list[int]


class _Choice(msgspec.Struct):
    message: _Message | None = None
    text: str | None = None
    logprobs: msgspec.Raw = msgspec.Raw(b"null")
    finish_reason: str | None = None


class _Reply(msgspec.Struct):
    choices: list[_Choice]


class _Named(msgspec.Struct):
    label: str


class Endpoint:
    """Requests to one server, for one model."""

    def __init__(
        self,
        address: Address,
        preset: Preset,
        fields: dict[str, Any],
        timeout_s: float,
        key: str = "",
    ) -> None:
        """`fields` are the sampling settings of every request; a request may take `timeout_s`."""
        self.address = address
        self._preset, self._fields = preset, fields
        self._timeout_s = timeout_s
        self._key = key
        self._shown = _pattern(key)
        self._runner = asyncio.Runner()
        self._task: asyncio.Task[Any] | None = None
        self._client: openai.AsyncOpenAI | None = None
        self._cancelled = False

    def choose(
        self, prompt: str | list[dict[str, str]], options: Sequence[str], seed: int = 0
    ) -> Answer:
        """Return which option the model chooses; an answer that is none is requested once more.

        Raises EndpointError.
        """
        began = time.monotonic()
        for attempt in range(2):
            try:
                option, thought = self._choose(prompt, options, seed + attempt)
                return Answer(option, thought, time.monotonic() - began)
            except NoLabelError as error:
                problem = error
        raise problem

    def cancel(self) -> None:
        """End the request that another thread waits for; all that follow fail."""
        self._cancelled = True
        task = self._task
        if task is not None:
            with contextlib.suppress(RuntimeError):  # its loop is closed by now
                task.get_loop().call_soon_threadsafe(task.cancel)

    def close(self) -> None:
        """Close the connections; on the thread that made the requests."""
        if self._client is not None:
            self._runner.run(self._client.close())
            self._client = None
        self._runner.close()

    def _choose(
        self, prompt: str | list[dict[str, str]], options: Sequence[str], seed: int
    ) -> tuple[str, str]:
        if self._preset.api == "chat":
            body = {"messages": prompt, "response_format": _schema(options)}
            choice = self._reply("/chat/completions", body, seed)
            return self._checked(choice, options)
        assert isinstance(prompt, str)
        if self._preset.choose == "logprob":
            scores = [self._log_probability(prompt, f" {option}") for option in options]
            return options[scores.index(max(scores))], ""
        constraint: dict[str, Any] = {"structured_outputs": {"choice": [f" {o}" for o in options]}}
        if self._preset.choose == "grammar":
            listed = " | ".join(json.dumps(f" {option}", ensure_ascii=False) for option in options)
            constraint = {"grammar": f"root ::= {listed}"}
        choice = self._reply("/completions", {"prompt": prompt, "stop": ["\n"]} | constraint, seed)
        return self._checked(choice, options)

    def _checked(self, choice: _Choice, options: Sequence[str]) -> tuple[str, str]:
        """Return (option, thought) of a reply; raises NoLabelError."""
        message = choice.message or _Message(choice.text)
        content = message.content or ""
        thought = message.reasoning_content or message.reasoning or ""
        if inline := THOUGHT.match(content):
            thought, content = inline[1], content[inline.end() :]
        said = _label_in(content)
        spelled = {option.lower(): option for option in options}
        if said.lower() in spelled:
            return spelled[said.lower()], self._hidden(thought.strip())
        if choice.finish_reason == "length":
            raise NoLabelError(
                f"{self.address} was cut off after {self._preset.max_tokens} tokens without a "
                "label: choose a lower effort"
            )
        raise NoLabelError(
            f"{self.address} answered '{self._quoted(said)}', which is none of the labels"
        )

    def _log_probability(self, prompt: str, option: str) -> float:
        """Return the log-probability of the option's tokens after the prompt."""
        body = {"prompt": prompt + option, "echo": True, "logprobs": 1, "max_tokens": 1}
        given = self._reply("/completions", body | {"temperature": 0.0}, 0).logprobs
        try:
            found = msgspec.json.decode(given, type=_LogProbs)
        except UNDECODABLE:
            raise EndpointError(
                f'{self.address} gives no log-probabilities of the prompt: set choose = "grammar"',
                passing=False,
            ) from None
        last = len(prompt) + len(option)
        of_option = [
            logprob or 0.0
            for offset, logprob in zip(found.text_offset, found.token_logprobs, strict=False)
            if len(prompt) <= offset < last
        ]
        return sum(of_option) if of_option else -float("inf")

    def _reply(self, path: str, body: dict[str, Any], seed: int) -> _Choice:
        """Return the first choice of the server's reply to a request; raises EndpointError."""
        common = {"model": self._preset.model, "max_tokens": self._preset.max_tokens, "seed": seed}
        payload = self._send(path, common | self._fields | body)
        try:
            [choice, *_] = msgspec.json.decode(payload, type=_Reply).choices
        except (*UNDECODABLE, ValueError):
            what = self._quoted(payload.decode(errors="replace"))
            raise NoLabelError(
                f"{self.address} sent what is no answer of such a server: '{what}'"
            ) from None
        return choice

    def _send(self, path: str, body: dict[str, Any]) -> bytes:
        try:
            return self._runner.run(self._post(path, body))
        except (TimeoutError, openai.APITimeoutError):
            problem = f"{self.address} did not answer within {self._timeout_s:g} s"
        except openai.APIStatusError as error:
            raise self._refusal(error.response) from None
        except (openai.APIConnectionError, httpx2.HTTPError, httpx2.StreamError) as error:
            why = self._quoted(str(error.__cause__ or error))
            problem = f"{self.address} cannot be reached ({why})"
        except asyncio.CancelledError:
            if not self._cancelled:  # Ctrl-C, which asyncio does not always make of it by itself
                raise KeyboardInterrupt from None
            problem = f"the request to {self.address} was cancelled"
        raise EndpointError(problem) from None

    async def _post(self, path: str, body: dict[str, Any]) -> bytes:
        self._task = asyncio.current_task()
        try:
            if self._cancelled:
                raise asyncio.CancelledError
            async with asyncio.timeout(self._timeout_s):
                if self._client is None:
                    self._client = self._connect()
                reply = await self._client.post(path, cast_to=httpx2.Response, body=body)
                return await reply.aread()
        finally:
            self._task = None

    def _connect(self) -> openai.AsyncOpenAI:
        asyncio.get_running_loop().set_default_executor(Daemons())
        address = self.address.bare.rstrip("/")
        for name in ("openai", "httpx2", "httpcore2"):  # they log the address with its path
            logging.getLogger(name).setLevel(logging.WARNING)
        headers = {"Accept-Encoding": "identity", "User-Agent": "streamtwl"}
        transport = Limited(HEADERS - ({"authorization"} if not self._key else set()))
        return openai.AsyncOpenAI(
            base_url=address if self.address.parts.path.strip("/") else f"{address}/v1",
            api_key=self._key or "none",
            max_retries=0,
            timeout=self._timeout_s,
            default_headers=headers,
            http_client=httpx2.AsyncClient(
                transport=transport, trust_env=False, follow_redirects=False
            ),
        )

    def _refusal(self, response: httpx2.Response) -> EndpointError:
        """Return the error for an HTTP status that is none of success."""
        status = response.status_code
        if 300 <= status < 400:
            return EndpointError(
                f"{self.address} redirects to another address, which is not followed: name that "
                "one with --endpoint if you trust it",
                passing=False,
            )
        if status in (401, 403):
            return EndpointError(
                f"{self.address} refuses the key (HTTP {status}): it comes from {KEY}, or from the "
                "variable that `key_env` under [llm] names",
                passing=False,
            )
        pause_s = _seconds(response.headers.get("retry-after", ""))
        if status == 429:
            return EndpointError(f"{self.address} has too many requests (HTTP 429)", pause_s)
        said = self._quoted(_message(response)) or "no reason given"
        passing = status >= 500 or status in (408, 409)
        return EndpointError(f"{self.address} answers HTTP {status}: {said}", pause_s, passing)

    def _hidden(self, text: str) -> str:
        """Return what a server says without the key, which some of them repeat."""
        return self._shown.sub("***", text)

    def _quoted(self, text: str) -> str:
        return _short(self._hidden(text))


def _pattern(key: str) -> re.Pattern[str]:
    """Return a pattern of the key, also as JSON writes it; of no text where it is no secret."""
    if len(key) < SECRET:
        return re.compile(r"\Z.")
    return re.compile("".join(rf"\\?{re.escape(each)}" for each in key))


def _schema(options: Sequence[str]) -> dict[str, Any]:
    """Return the response format of an object with one of the options as its label."""
    schema = {
        "type": "object",
        "properties": {"label": {"type": "string", "enum": list(options)}},
        "required": ["label"],
        "additionalProperties": False,
    }
    named = {"name": "label", "strict": True, "schema": schema}
    return {"type": "json_schema", "json_schema": named}


def _label_in(content: str) -> str:
    """Return the label of a JSON object that ends the text, or the text itself."""
    text = content.strip().removeprefix("```json").strip("` \n")
    try:
        return msgspec.json.decode(text, type=_Named).label.strip()
    except UNDECODABLE:
        return text.strip("\"'. ")


def _message(response: httpx2.Response) -> str:
    """Return what a server says of an error, as most of them say it."""
    try:
        text = response.text
        found = json.loads(text)
        return str(found["error"]["message"])
    except (ValueError, KeyError, TypeError, RecursionError, httpx2.StreamError):
        return response.text if response.is_stream_consumed else ""


def _seconds(retry_after: str) -> float:
    """Return a Retry-After in seconds, 0 for none and for a date."""
    return min(float(retry_after), LONGEST_PAUSE_S) if retry_after.isdecimal() else 0.0


def _short(text: str) -> str:
    said = one_line(" ".join(text.split()))
    return said if len(said) <= SERVERS_WORDS else said[:SERVERS_WORDS] + " ..."
