"""What an experiment consists of: the TOML file of `streamtwl paper`."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

import msgspec
from msgspec import Meta

from streamtwl import config
from streamtwl.errors import UNDECODABLE, ConfigError, UsageError
from streamtwl.reasoners.prompts import preset, request_fields
from streamtwl.reasoners.server import address_of

Count = Annotated[int, Meta(ge=1, le=4096)]
Seed = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Simple = Literal[
    "names-vote",
    "names-mean",
    "names-log-mean",
    "vote",
    "mean",
    "log-mean",
    "hmm",
    "linear",
    "linear-root",
    "linear-mean",
    "linear-mean-log",
    "linear-tempered",
    "linear-embedding",
    "counts",
]
QUICK_SAMPLES, QUICK_EPOCHS, QUICK_CLIPS = [1, 4, 16], 4, 3


def _list(*values: Any) -> Any:
    """Return a field whose default is a list."""
    return msgspec.field(default_factory=lambda: [*values])


class _Table(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    pass


class Data(_Table, frozen=True):
    """[[data]]: a data set."""

    folder: str  # ESC-50's layout, FSD50K's, or a folder per class
    name: str = ""  # in the tables; "": the folder's
    names: str = ""  # a table of what the labels are called in AudioSet; "": the same
    train: list[int] = []  # folds to train on, and ...
    test: list[int] = []  # ... to test on; without `train` each in turn, trained on all others
    folds: Annotated[int, Meta(ge=0)] = 0  # of those in turn, only the first so many; 0: all
    clips: Annotated[int, Meta(ge=0)] = 0  # of each class and fold; 0: all


class Gpt2(_Table, frozen=True):
    """[[gpt2]]: a language model that reads sampled traces."""

    trunk: str = "tiny"  # or a directory, a .gguf file, an id of Hugging Face's hub
    weights: Literal["frozen", "trained", "random"] = "frozen"
    soft: bool = True  # also read the soft trace, the line that samples tend to
    embedding: Literal["new", "own"] = "new"  # own: begins with the trunk's words for categories
    epochs: Annotated[int, Meta(ge=1, le=10_000)] = 30
    name: str = ""  # in the tables


class LanguageModel(_Table, frozen=True):
    """[[llm]]: a language model on a server, zero-shot."""

    preset: str
    endpoint: str = "http://127.0.0.1:8000/v1"
    model: str = ""  # "": the preset's
    effort: str = ""
    timeout_s: Annotated[float, Meta(gt=0, le=86_400)] = 30.0
    samples: Annotated[list[Annotated[int, Meta(ge=0, le=4096)]], Meta(min_length=1)] = _list(0)
    # K; 0: confidences
    clips: Annotated[int, Meta(ge=0)] = 0  # of each class and fold; 0: all


class Checkpoint(_Table, frozen=True):
    """[[checkpoint]]: a reasoner of `streamtwl train` that knows the data set's labels."""

    file: str  # {fold} stands for the tested fold
    name: str = ""


class Plan(_Table, frozen=True):
    """The file."""

    data: Annotated[list[Data], Meta(min_length=1)]
    backbones: Annotated[list[config.Window], Meta(min_length=1)] = _list("yamnet:0.96")
    reasoners: list[Simple] = _list("vote", "mean", "log-mean", "linear", "hmm", "counts")
    gpt2: list[Gpt2] = []
    llm: list[LanguageModel] = []
    checkpoint: list[Checkpoint] = []
    baseline: str = "mean"  # the reasoner that the others are compared with
    samples: Annotated[list[Count], Meta(min_length=1)] = _list(1, 2, 4, 8, 16, 32, 64)  # K
    traces: Annotated[list[Count], Meta(min_length=1)] = _list(1)  # M
    seeds: Annotated[list[Seed], Meta(min_length=1)] = _list(0, 1)
    patches: list[Count] = []  # also decide after so many
    snr_db: list[Annotated[int, Meta(ge=-100, le=100)]] = []  # also test in white noise
    noise_copies: Annotated[int, Meta(ge=0, le=64)] = 0  # of a training clip, at 0 to 25 dB
    hop_s: Annotated[float, Meta(ge=0.01, le=60)] = 0.48


def load(path: Path) -> Plan:
    """Read an experiment; its paths count from the file's folder. Raises ConfigError."""
    try:
        found = msgspec.toml.decode(path.read_bytes(), type=dict[str, Any])
        plan = msgspec.convert(found, Plan)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {_explain(str(error))}") from None
    except UNDECODABLE as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    _check(path, plan)
    return _resolved(plan, path.parent)


def quick(plan: Plan) -> Plan:
    """Return an experiment that goes through every step on few clips; its figures mean little."""
    few = [
        msgspec.structs.replace(each, clips=min(each.clips or QUICK_CLIPS, QUICK_CLIPS), folds=1)
        for each in plan.data
    ]
    gpt2 = [
        msgspec.structs.replace(each, epochs=min(each.epochs, QUICK_EPOCHS)) for each in plan.gpt2
    ]
    samples = [k for k in plan.samples if k in QUICK_SAMPLES] or plan.samples[:1]
    return msgspec.structs.replace(
        plan, data=few, gpt2=gpt2, samples=samples, traces=plan.traces[:1], seeds=plan.seeds[:1]
    )


def data_name(data: Data) -> str:
    """Return what the tables call a data set."""
    return data.name or Path(data.folder).name


def _check(path: Path, plan: Plan) -> None:
    lists: list[tuple[str, Sequence[Any]]] = [
        ("data", [data_name(each) for each in plan.data]),
        ("backbones", plan.backbones),
        ("reasoners", plan.reasoners),
        ("samples", plan.samples),
        ("traces", plan.traces),
        ("seeds", plan.seeds),
        *((f"{data_name(each)}: train", each.train) for each in plan.data),
        *((f"{data_name(each)}: test", each.test) for each in plan.data),
    ]
    for what, of in lists:
        twice = [each for each in of if [*of].count(each) > 1]
        if twice:
            raise ConfigError(f"{path}: {what}: {twice[0]} is there twice: leave one out")
    for spec in plan.llm:
        try:
            address_of(spec.endpoint)
            request_fields(preset(spec.preset), spec.effort)
        except UsageError as error:
            problem = str(error).removeprefix("--")
            raise ConfigError(f"{path}: llm, preset '{spec.preset}': {problem}") from None
    for each in plan.data:
        if each.train and not each.test:
            raise ConfigError(f"{path}: {data_name(each)} has `train` without `test`: name both")
        both = set(each.train) & set(each.test)
        if both:
            raise ConfigError(
                f"{path}: {data_name(each)}: fold {min(both)} is in `train` and in `test`"
            )


def _resolved(plan: Plan, folder: Path) -> Plan:
    """Return a plan whose paths do not depend on its file any more."""

    def path(name: str) -> str:
        return str(folder / Path(name).expanduser()) if name else ""

    def trunk(name: str) -> str:
        return path(name) if (folder / Path(name).expanduser()).exists() else name

    change = msgspec.structs.replace
    return change(
        plan,
        data=[change(e, folder=path(e.folder), names=path(e.names)) for e in plan.data],
        gpt2=[change(e, trunk=trunk(e.trunk)) for e in plan.gpt2],
        checkpoint=[change(e, file=path(e.file)) for e in plan.checkpoint],
    )


def _explain(message: str) -> str:
    """Put the key first, as `config` does for pipelines."""
    problem, _, place = message.partition(" - at `$")
    key = re.sub(r"\[[\d.]*\]", "", place.strip("`").lstrip("."))
    if problem.startswith("Object contains unknown field"):
        tables = {"data": Data, "gpt2": Gpt2, "llm": LanguageModel, "checkpoint": Checkpoint}
        struct = tables.get(key, Plan)
        problem = f"unknown key {problem.split('`')[1]}: it takes "
        problem += ", ".join(struct.__struct_fields__)
    elif "matching regex" in problem:
        problem = "it takes a backbone and seconds, as mn04:2"
    elif "enum value" in problem:
        choices = {
            "reasoners": Simple,
            **{f"gpt2.{name}": of for name, of in get_type_hints(Gpt2).items()},
        }
        problem += f"; it takes {', '.join(get_args(choices[key]))}"
    return f"{key}: {problem}" if key else problem
