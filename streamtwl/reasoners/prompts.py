"""What a language model reads and what it may answer: presets, prompts, labels as it sees them."""

from collections import Counter
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import msgspec

from streamtwl.errors import UsageError
from streamtwl.reasoners import trace_words
from streamtwl.reasoners.trace_words import Step

CHARACTERS_PER_TOKEN = 2.5  # fewer than English has; numbers and names take more tokens
LEAST_TRACE = 400  # characters; about ten steps in events
NONE = "none of these"


class Preset(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A kind of language model: its API, its budget, its sampling settings."""

    api: Literal["chat", "completion"]
    # Of completions. grammar: GBNF, of llama.cpp; choice: vLLM's; logprob: each label's
    # log-probability, by echo (vLLM, llama-cpp-python)
    choose: Literal["grammar", "choice", "logprob"] = "grammar"
    model: str = ""
    context: int  # tokens
    max_tokens: int  # of an answer, thinking included
    sampling: dict[str, Any]  # fields of the request
    effort: str = ""  # the default one
    efforts: dict[str, dict[str, Any]] = {}  # by name: more fields of the request
    serve: list[str] = []  # command lines


class _Prompts(msgspec.Struct, forbid_unknown_fields=True):
    system: str
    chat: str
    completion: str


class _Examples(msgspec.Struct, forbid_unknown_fields=True):
    confidences: list[str]
    draws: list[str]


class _File(msgspec.Struct, forbid_unknown_fields=True):
    prompts: _Prompts
    examples: _Examples
    presets: dict[str, Preset]


@cache
def _file() -> _File:
    text = (files("streamtwl") / "reasoners" / "presets.toml").read_text()
    return msgspec.toml.decode(text, type=_File)


def preset(name: str) -> Preset:
    """Return a preset; raises UsageError for a name that is none."""
    known = _file().presets
    if name not in known:
        raise UsageError(f"no preset is called '{name}': there is {', '.join(known)}")
    return known[name]


def request_fields(chosen: Preset, effort: str) -> dict[str, Any]:
    """Return the sampling fields of a request at an effort ("": the preset's own).

    Raises UsageError for one that the preset does not have.
    """
    effort = effort or chosen.effort
    if effort and effort not in chosen.efforts:
        takes = ", ".join(chosen.efforts) or "none: leave it out"
        raise UsageError(f"effort is '{effort}'; this preset has {takes}")
    return chosen.sampling | chosen.efforts.get(effort, {})


class Prompt:
    """Traces to prompts, for a list of labels."""

    def __init__(self, chosen: Preset, labels: Sequence[str], none: bool, drawn: bool) -> None:
        """With `none`, "none of these" may be the answer; `drawn`: traces of draws.

        Raises UsageError where the labels alone fill the context.
        """
        self.options = _spelled(labels) | ({NONE: None} if none else {})
        self._preset, self._drawn = chosen, drawn
        self._system = _file().prompts.system if chosen.api == "chat" else ""
        empty = self._text("", 0.0, 0.0)
        tokens = chosen.context - chosen.max_tokens
        self._characters = int(tokens * CHARACTERS_PER_TOKEN) - len(self._system) - len(empty)
        if self._characters < LEAST_TRACE:
            taken = round((len(self._system) + len(empty)) / CHARACTERS_PER_TOKEN)
            raise UsageError(
                f"{len(labels)} labels take about {taken} of the {tokens} tokens that a prompt may "
                "have: choose fewer with --labels, or a larger `context` under [llm]"
            )

    def messages(self, steps: Sequence[Step], start_s: float, end_s: float) -> list[dict[str, str]]:
        """Return what a chat model reads about the sound from `start_s` to `end_s`."""
        system = {"role": "system", "content": self._system}
        return [system, {"role": "user", "content": self.text(steps, start_s, end_s)}]

    def text(self, steps: Sequence[Step], start_s: float, end_s: float) -> str:
        """Return the user's message, or the text that a base model is to continue."""
        trace = trace_words.words(steps, self._characters, self._drawn)
        return self._text(trace, start_s, end_s)

    def _text(self, trace: str, start_s: float, end_s: float) -> str:
        prompts, examples = _file().prompts, _file().examples
        template = prompts.chat if self._preset.api == "chat" else prompts.completion
        amount = "how often it was drawn" if self._drawn else "its confidence"
        return template.format(
            labels="; ".join(self.options),
            unit=f"each name with {amount}",
            examples=examples.draws if self._drawn else examples.confidences,
            trace=trace,
            start=f"{start_s:.1f}",
            end=f"{end_s:.1f}",
        ).removeprefix("\n")


def _spelled(labels: Sequence[str]) -> dict[str, int | None]:
    """Return each label's number by what it is called in prompts: one line, each once."""
    names = [trace_words.plain(label.replace("_", " ")) for label in labels]
    again = Counter(name.lower() for name in [*names, NONE])
    return {
        name if again[name.lower()] == 1 else f"{name} (label {i + 1})": i
        for i, name in enumerate(names)
    }
