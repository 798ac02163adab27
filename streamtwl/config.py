"""Settings of a pipeline: types, limits and every default, loaded from `pipelines/*.toml`."""

import os
import re
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec
from msgspec import Meta

from streamtwl.errors import UNDECODABLE, ConfigError

DEFAULT_PIPELINE = "default"
DEPRECATED = {"yamnet-gpt2": "gpt2"}  # names of pipelines, and what they are called by now

Share = Annotated[float, Meta(ge=0, le=1)]
Seconds = Annotated[float, Meta(ge=0, le=86_400)]
PositiveSeconds = Annotated[float, Meta(gt=0, le=86_400)]
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]

Think = Literal["off", "fixed", "anytime"]

# A backbone and how many seconds of the newest sound it scores, as mn04:3; without a length the
# shortest that it takes.
Window = Annotated[str, Meta(pattern=r"^[^:\s]+(:[0-9]+(\.[0-9]+)?)?\Z")]


class _Section(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    pass


class BackboneSettings(_Section):
    """[backbone]"""

    model: str = ""  # deprecated: as windows = [model]
    threads: Annotated[int, Meta(ge=1, le=64)] = 1  # of ONNX Runtime, for one model call
    provider: Literal["auto", "cpu", "cuda"] = "auto"  # auto: a GPU where ONNX Runtime has CUDA


class TraceSettings(_Section):
    """[trace]: what is drawn from each posterior."""

    samples: Annotated[int, Meta(ge=1, le=4096)] = 16  # K, per patch and trace
    traces: Annotated[int, Meta(ge=1, le=256)] = 1  # M
    temperature: Annotated[float, Meta(gt=0, le=1000)] = 1.0  # tau
    horizon_s: PositiveSeconds = 30.0
    seed: Seed = 0
    think: Think = "anytime"  # off: one trace; fixed: M, then decide; anytime: refine
    budget: Share = 0.5  # of the hop, for refinement


class ReasonerSettings(_Section):
    """[reasoner]"""

    file: str = ""  # a trained reasoner: an .onnx file, or one that ships; "": evidence
    # evidence only, all seven
    on: Share = 0.4  # an event begins at this confidence, where [events] says nothing else ...
    off: Share = 0.2  # ... and ends below this one
    half_life_s: PositiveSeconds = 0.35  # of a patch's weight
    prior: Annotated[float, Meta(ge=0, le=2)] = 0.6  # the share of it that is taken out
    weights: dict[str, Annotated[float, Meta(ge=0, le=1000)]] = {}  # by window; absent: 1
    scale: Annotated[float, Meta(gt=0, le=100)] = 1.0  # the confidence is the sigmoid of the joint
    shift: Annotated[float, Meta(ge=-100, le=100)] = 0.0  # logit times `scale` plus `shift`
    specific_ratio: Share = 0.5  # a parent yields to a kind of it that scores this share of its own
    floor: Share = 0.1  # below this confidence the label is null


class LlmSettings(_Section):
    """[llm]: the language model of --reasoner llm, and where it is served."""

    endpoint: str = ""  # http(s)://host:port/v1
    preset: str = "chat"  # one of reasoners/presets.toml
    model: str = ""  # as the server calls it; "": the preset's
    effort: str = ""  # how long it thinks: one of the preset's; "": the preset's own
    key_env: Annotated[str, Meta(pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?\Z")] = ""  # the variable with
    # the server's key; "": OPENAI_API_KEY, which goes over https or to this machine only
    timeout_s: PositiveSeconds = 30.0  # for a request
    after_s: Seconds = 2.0  # of an event, before the model looks at it; at its end at the latest
    votes: Annotated[int, Meta(ge=1, le=64)] = 1  # answers a trace; most of them decide
    trace: Literal["soft", "sampled"] = "soft"  # confidences; or K draws a patch, M times: [trace]
    context: Annotated[int, Meta(ge=0, le=10_000_000)] = 0  # tokens; 0: the preset's
    choose: Literal["", "grammar", "choice", "logprob"] = ""  # base models only; "": the preset's


class LabelEventSettings(_Section):
    """When one label's events begin and end."""

    on: Share = 0.4
    off: Share = 0.2
    min_duration_s: Seconds = 0.0
    cooldown_s: Seconds = 0.0

    def __post_init__(self) -> None:
        if self.off > self.on:
            raise ValueError(f"off ({self.off:g}) is above on ({self.on:g}): set both")

    def is_on(self, score: float, was_on: bool) -> bool:
        """Return whether a label of this score is on, by hysteresis."""
        return score >= (self.off if was_on else self.on)


class AudioSetSettings(_Section):
    """[events.audioset]: added to [events], but not for a reasoner with labels of its own."""

    exclude: list[str] = []
    label: dict[str, Any] = {}


class EventSettings(_Section):
    """[events]: the same for all labels, except where [events.label."NAME"] sets another value."""

    # None: a trained reasoner's own, if it has labels of its own, else as in LabelEventSettings
    on: Share | None = None
    off: Share | None = None
    min_duration_s: Seconds = 0.0
    cooldown_s: Seconds = 0.0
    include: list[str] = []  # only these labels; * and ? as in file names; empty: all
    exclude: list[str] = []
    # By name or pattern; of those that match, later ones override, those in `audioset` come first.
    label: dict[str, Any] = {}
    audioset: AudioSetSettings = msgspec.field(default_factory=AudioSetSettings)

    def __post_init__(self) -> None:
        LabelEventSettings(**self._shared())
        for label in [*self.audioset.label, *self.label]:
            self.rule(label)

    def rule(self, label: str) -> LabelEventSettings:
        """Return when events of `label` begin and end."""
        merged, places = self._shared(), []
        for section, rules in (("audioset.label", self.audioset.label), ("label", self.label)):
            for pattern, own in rules.items():
                if not isinstance(own, dict):
                    raise ValueError(
                        f'{section}."{pattern}": it takes a table, as {{ on = 0.3, off = 0.1 }}'
                    )
                if fnmatch(label.lower(), pattern.lower()):
                    merged |= own
                    places.append(f'{section}."{pattern}"')
        try:
            return msgspec.convert(merged, LabelEventSettings)
        except msgspec.ValidationError as error:
            problem = _explain(str(error), LabelEventSettings)
            raise ValueError(f"{' with '.join(places)}: {problem}") from None

    def wants(self, label: str) -> bool:
        """Whether a label is one to be named at all."""

        def fits(patterns: list[str]) -> bool:
            return any(fnmatch(label.lower(), pattern.lower()) for pattern in patterns)

        if self.include and not fits(self.include):
            return False
        return not fits([*self.audioset.exclude, *self.exclude])

    def _shared(self) -> dict[str, Any]:
        """Return what is set for all labels."""
        values = {name: getattr(self, name) for name in LabelEventSettings.__struct_fields__}
        return {name: value for name, value in values.items() if value is not None}


class PublishSettings(_Section):
    """[publish]: ZeroMQ."""

    bind: str = "tcp://127.0.0.1:5577"
    encoding: Literal["msgpack", "json"] = "msgpack"
    replay: str = "tcp://127.0.0.1:5578"  # where journalled messages can be replayed; "": nowhere
    curve: bool = False  # encrypted, for holders of allowed keys only
    keys: str = ""  # the folder of keys; "": keys in the user's config folder


class JournalSettings(_Section):
    """[journal]: what was published, kept in SQLite."""

    enabled: bool = True
    path: str = ""  # "": journal.sqlite in the user's state folder, or in $STREAMTWL_STATE
    max_age_days: Annotated[float, Meta(gt=0, le=36_500)] = 30.0
    max_mb: Annotated[float, Meta(ge=1, le=10_000_000)] = 500.0  # 10^6 bytes; events go last


class ClipsSettings(_Section):
    """[clips]: each event's sound, kept to be listened to again; off unless a folder is named."""

    folder: str = ""
    max_age_days: Annotated[float, Meta(gt=0, le=36_500)] = 7.0
    max_mb: Annotated[float, Meta(gt=0, le=10_000_000)] = 200.0  # 10^6 bytes; the oldest go first


class LevelSettings(_Section):
    """[level]: how loud it is, A-weighted."""

    enabled: bool = True
    loud_dba: Annotated[float, Meta(ge=-120, le=200)] | None = None  # an event "Loud" from here on
    # By source ("*": all others): what to add to dB full scale for the sound pressure level.
    calibration_db: dict[str, Annotated[float, Meta(ge=-200, le=200)]] = {}

    def offset_db(self, source: str) -> float | None:
        """Return a source's calibration, None where it has none."""
        return self.calibration_db.get(source, self.calibration_db.get("*"))


class SoundsSettings(_Section):
    """[sounds]: those that the user taught, beside all other labels."""

    enabled: bool = True


class MqttSettings(_Section):
    """[services.mqtt]"""

    url: str = ""  # mqtt://[user@]host[:port] or mqtts://; "": off
    labels: list[str] = []  # that get a binary sensor each
    password_file: str = ""  # its first line; "": $STREAMTWL_MQTT_PASSWORD
    ca_file: str = ""  # who signed the broker's certificate, PEM; "": whom the system trusts
    prefix: str = "streamtwl"  # of all topics but those of discovery
    discovery: str = "homeassistant"  # Home Assistant's own prefix; "": no discovery


class WebSettings(_Section):
    """[services.web]"""

    address: str = ""  # [host:]port; "": off
    password_file: str = ""  # its first line; "": $STREAMTWL_WEB_PASSWORD
    token_file: str = ""  # of programs, its first line; "": $STREAMTWL_WEB_TOKEN
    proxy: str = ""  # IP address of the only peer that may connect, and that lets people in
    names: list[str] = []  # by which the page is called up at the proxy, or besides localhost
    certificate: str = ""  # PEM; "": no TLS
    certificate_key: str = ""  # PEM
    journal: str = ""  # that is read; beside a listener elsewhere, one that the page keeps


class AlertsSettings(_Section):
    """[services.alerts]"""

    rules: str = ""  # a file of rules; "": off


class MetricsSettings(_Section):
    """[services.metrics]"""

    address: str = ""  # [host:]port; "": off


class ServicesSettings(_Section):
    """[services]: what `streamtwl serve` runs; the first setting of each switches it on."""

    mqtt: MqttSettings = msgspec.field(default_factory=MqttSettings)
    web: WebSettings = msgspec.field(default_factory=WebSettings)
    alerts: AlertsSettings = msgspec.field(default_factory=AlertsSettings)
    metrics: MetricsSettings = msgspec.field(default_factory=MetricsSettings)


class Settings(_Section):
    """A pipeline."""

    base: str = ""  # a pipeline that ships, of which this one is a change
    fallback: str = ""  # one that ships: for machines without the weights that this one needs
    labels: str = "all"  # everyday, all, or names separated by commas
    hop_s: Annotated[float, Meta(ge=0.01, le=60)] = 0.48
    windows: Annotated[list[Window], Meta(min_length=1, max_length=16)] = msgspec.field(
        default_factory=lambda: ["yamnet:0.96"]
    )
    gate: Share = 0.0  # a label's score in the first window that the others are worth; 0: always
    backbone: BackboneSettings = msgspec.field(default_factory=BackboneSettings)
    trace: TraceSettings = msgspec.field(default_factory=TraceSettings)
    reasoner: ReasonerSettings = msgspec.field(default_factory=ReasonerSettings)
    llm: LlmSettings = msgspec.field(default_factory=LlmSettings)
    events: EventSettings = msgspec.field(default_factory=EventSettings)
    level: LevelSettings = msgspec.field(default_factory=LevelSettings)
    sounds: SoundsSettings = msgspec.field(default_factory=SoundsSettings)
    clips: ClipsSettings = msgspec.field(default_factory=ClipsSettings)
    publish: PublishSettings = msgspec.field(default_factory=PublishSettings)
    journal: JournalSettings = msgspec.field(default_factory=JournalSettings)
    services: ServicesSettings = msgspec.field(default_factory=ServicesSettings)
    sinks: dict[str, dict[str, Any]] = {}  # [sinks.NAME]: of other packages, and their settings

    def __post_init__(self) -> None:
        if self.backbone.model:
            self.windows = [self.backbone.model]
        if len(set(self.windows)) < len(self.windows):
            raise ValueError(f"windows: {', '.join(self.windows)}: each can be there once")
        if abs(self.hop_s * 100 - round(self.hop_s * 100)) > 1e-6:
            raise ValueError(f"hop_s is {self.hop_s:g} s, it takes a multiple of 0.01 s")


def backbones(settings: Settings) -> list[str]:
    """Return the names of the backbones that score the windows."""
    return list(dict.fromkeys(window.partition(":")[0] for window in settings.windows))


def with_windows(settings: Settings, windows: list[str]) -> Settings:
    """Return the settings with these windows; raises ConfigError for one that cannot be.

    The gate was chosen for the windows that there were: others are scored always.
    """
    gate = settings.gate if windows == settings.windows else 0.0
    return override(settings, {"windows": windows, "gate": gate, "backbone.model": ""})


def load(path: Path) -> Settings:
    """Read a pipeline file; raises ConfigError that names the file, the key and valid values."""
    try:
        return msgspec.convert(_read(path), Settings)
    except msgspec.ValidationError as error:
        raise ConfigError(f"pipeline {path}: {_explain(str(error))}") from None


def _read(path: Path, changes: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return a pipeline file's keys over those of its base; `changes` are files based on it.

    A reasoner's file reads certain windows, and a gate was chosen for them: those of the base are
    not those of a file which names other windows.
    """
    try:
        keys = msgspec.toml.decode(path.read_bytes(), type=dict[str, Any])
    except OSError as error:
        raise ConfigError(f"pipeline {path}: {error.strerror}") from None
    except UNDECODABLE as error:
        raise ConfigError(f"pipeline {path} is not TOML: {error}") from None
    named = keys.pop("base", "")
    if named == "":
        return keys
    if not isinstance(named, str) or not named.isprintable():
        raise ConfigError(f"pipeline {path}: base is {named!r}, it takes the name of another one")
    base, changes = find(named), (*changes, os.path.realpath(path))
    if os.path.realpath(base) in changes:
        raise ConfigError(f"pipeline {path}: base is {named!r}, which is based on this one")
    under = _read(base, changes)
    backbone, reasoner = keys.get("backbone"), under.get("reasoner")
    others = "windows" in keys or (isinstance(backbone, dict) and "model" in backbone)
    if others:
        under.pop("gate", None)
        if isinstance(reasoner, dict):
            reasoner.pop("file", None)
    return _over(keys, under)


def _over(keys: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    """Return `base` with `keys` in place of its own, table by table; an empty table empties it."""
    tables = {
        name: _over(key, base[name])
        for name, key in keys.items()
        if isinstance(key, dict) and key and isinstance(base.get(name), dict)
    }
    return base | keys | tables


def find(pipeline: str) -> Path:
    """Return the path of a pipeline file: a path, or the name of one that streamtwl ships."""
    if pipeline.endswith(".toml") or "/" in pipeline:
        return Path(pipeline)
    pipeline = DEPRECATED.get(pipeline, pipeline)
    here = Path(__file__).parent
    folders = [here / "pipelines", here.parent / "pipelines"]  # in the wheel; in a checkout
    shipped = {path.stem: path for folder in folders for path in folder.glob("*.toml")}
    if pipeline not in shipped:
        names = ", ".join(sorted(shipped))
        raise ConfigError(f"no pipeline is called '{pipeline}': there is {names}, or a .toml file")
    return shipped[pipeline]


def override(settings: Settings, changes: dict[str, Any]) -> Settings:
    """Return the settings with `changes` ("section.key" or "key": value), checked again."""
    plain = msgspec.to_builtins(settings)
    for dotted, value in changes.items():
        *sections, key = dotted.split(".")
        section = plain
        for name in sections:
            section = section[name]
        section[key] = value
    try:
        return msgspec.convert(plain, Settings)
    except msgspec.ValidationError as error:
        raise ConfigError(_explain(str(error))) from None


def _explain(message: str, settings: Any = Settings) -> str:
    """Put the key first: "Expected `int`, got `str` - at `$.trace.seed`" names it last."""
    match = re.fullmatch(r"(.*?)(?: - at `\$\.?(.*)`)?", message, re.DOTALL)
    assert match is not None
    said = (match[2] or "").replace("[...]", "")  # of a table's entries, whose key is not said
    problem, path = match[1], [name for name in said.split(".") if name]
    problem = f"in one of its entries: {problem}" if said != (match[2] or "") else problem
    key = ".".join(path)
    if unknown := re.search(r"unknown field `(.*)`", problem):
        takes = ", ".join(_type_of(settings, path).__struct_fields__)
        section = f" in [{key}]" if key else ""
        return f"unknown key '{unknown[1]}'{section}; it takes {takes}"
    if "matching regex" in problem:  # of Window
        problem = "it takes a backbone and seconds, as mn04:3"
        if key == "llm.key_env":
            problem = "it takes the name of an environment variable, never a key"
    if "enum value" in problem:
        problem += f"; it takes {', '.join(map(repr, get_args(_type_of(settings, path))))}"
    if problem.startswith(("label.", "audioset.label.")):  # from EventSettings.rule
        return f"{key}.{problem}"
    return f"{key}: {problem}" if key else problem


def _type_of(settings: Any, path: list[str]) -> Any:
    """Return the type of the setting that `path` leads to."""
    for name in path:
        settings = next(f.type for f in msgspec.structs.fields(settings) if f.name == name)
        if get_origin(settings) is dict:
            settings = get_args(settings)[1]
    return settings
