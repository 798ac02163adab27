"""What can be requested under /api/: the parameters, and the OpenAPI document that says so."""

from functools import cache
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from streamtwl import __version__
from streamtwl.marks.store import Verdict
from streamtwl.messages import SOURCE_NAME
from streamtwl.services.web.past import MOST_EVENTS

LONGEST_PASSWORD = 1000

Probability = Annotated[float, Meta(ge=0, le=1)]
Until = Annotated[float, Meta(ge=0, le=1e11, description="Unix seconds; 0: now.")]
Pattern = Annotated[
    str, Meta(max_length=200, description="With * and ? as in file names; empty: all.")
]
Source = Annotated[
    str, Meta(max_length=100, pattern=f"^({SOURCE_NAME.pattern})?$", description="Empty: all.")
]


class Minutes(msgspec.Struct, forbid_unknown_fields=True):
    """Which time of which source."""

    since: Annotated[float, Meta(ge=0, le=1e11, description="Unix seconds.")] = 0.0
    until: Until = 0.0
    source: Source = ""


class Period(Minutes):
    """Which events."""

    label: Pattern = ""
    began: Annotated[
        int, Meta(ge=0, le=1, description="1: those that began in this time, before `until`.")
    ] = 0


class Listed(Period):
    """Which page of them."""

    limit: Annotated[int, Meta(ge=1, le=MOST_EVENTS)] = 100
    offset: Annotated[int, Meta(ge=0, le=10_000_000)] = 0


class Counted(msgspec.Struct, forbid_unknown_fields=True):
    """Which heat map."""

    period: Annotated[
        str, Meta(pattern="^(hour|day)$", description="hour: the last 24; day: the last 30.")
    ] = "hour"
    until: Until = 0.0
    label: Pattern = ""
    source: Source = ""


class Thresholds(msgspec.Struct, forbid_unknown_fields=True):
    """Of a label."""

    label: Annotated[str, Meta(min_length=1, max_length=200)]
    on: Probability
    off: Probability


class Live(msgspec.Struct, forbid_unknown_fields=True):
    """What a live page gets."""

    mel: Annotated[int, Meta(ge=0, le=1, description="1: frames of the spectrogram too.")] = 0


class Login(msgspec.Struct, forbid_unknown_fields=True):
    """The password."""

    password: Annotated[str, Meta(max_length=LONGEST_PASSWORD)]


class Word(msgspec.Struct, forbid_unknown_fields=True):
    """The user's word on an event."""

    verdict: Verdict
    was: Annotated[
        str, Meta(max_length=200, description="What it was instead, of a wrong one; may be empty.")
    ] = ""


OPERATIONS: dict[tuple[str, str], tuple[str, type | None]] = {
    ("get", "/api/session"): ("Whether there is a password, and the CSRF token to send.", None),
    ("post", "/api/login"): ("Begin a session: a cookie.", Login),
    ("post", "/api/logout"): ("End it.", None),
    ("get", "/api/state"): ("What sounds now: each source's newest decisions and events.", None),
    ("get", "/api/live"): ("The same as it comes: server-sent events.", Live),
    ("get", "/api/events"): ("What sounded, newest first; the last day without `since`.", Listed),
    ("get", "/api/events.csv"): ("The same as a table, all of it.", Period),
    ("get", "/api/events/{id}"): (
        "All messages on an event, the decisions around it, its mark.",
        None,
    ),
    ("get", "/api/events/{id}/clip"): ("Its sound, FLAC, where it was kept.", None),
    ("post", "/api/events/{id}/mark"): ("Say that it is right, or wrong, or what it was.", Word),
    ("delete", "/api/events/{id}/mark"): ("Take that back.", None),
    ("get", "/api/counts"): ("How often each label sounded, by hour or by day.", Counted),
    ("get", "/api/levels"): ("How loud each minute was.", Minutes),
    ("get", "/api/settings"): ("Labels, thresholds, models, taught sounds.", None),
    ("get", "/api/what-if"): ("What these thresholds would have done in a day.", Thresholds),
    ("get", "/api/health"): ("Delays, losses, load, journal.", None),
}

KINDS = {  # of answers that are no JSON
    "/api/live": "text/event-stream",
    "/api/events.csv": "text/csv",
    "/api/events/{id}/clip": "audio/flac",
}
SCHEMES = {
    "cookie": {
        "type": "apiKey", "in": "cookie", "name": "streamtwl_session_PORT",
        "description": "Of a login, or of the link that is printed at the start.",
    },
    "csrf": {
        "type": "apiKey", "in": "header", "name": "x-csrf-token",
        "description": "What /api/session says, with the cookie.",
    },
    "token": {
        "type": "http", "scheme": "bearer",
        "description": "token_file's; of a page without a password the key in its link.",
    },
}  # fmt: skip


@cache
def openapi() -> dict[str, Any]:
    """Return the OpenAPI 3.1 document."""
    paths: dict[str, Any] = {}
    for (method, path), (summary, takes) in OPERATIONS.items():
        operation: dict[str, Any] = {
            "summary": summary,
            "responses": {
                "200": {
                    "description": "It is there.",
                    "content": {KINDS.get(path, "application/json"): {}},
                },
                "default": {
                    "description": "Why it is not.",
                    "content": {
                        "application/json": {
                            "schema": {
                                "type": "object",
                                "properties": {"error": {"type": "string"}},
                                "required": ["error"],
                            }
                        }
                    },
                },
            },
        }
        parameters = [
            {"name": name[1:-1], "in": "path", "required": True, "schema": {"type": "string"}}
            for name in path.split("/")
            if name.startswith("{")
        ]
        if takes is not None:
            _, defined = msgspec.json.schema_components([takes])
            schema = defined[takes.__name__]
            if method == "post":
                content = {"application/json": {"schema": schema}}
                operation["requestBody"] = {"required": True, "content": content}
            else:
                parameters += [
                    {
                        "name": name,
                        "in": "query",
                        "required": name in schema.get("required", []),
                        "schema": of,
                    }
                    for name, of in schema["properties"].items()
                ]
        if method != "get" and path != "/api/login":
            operation["security"] = [{"cookie": [], "csrf": []}, {"token": []}]
        if parameters:
            operation["parameters"] = parameters
        paths.setdefault(path, {})[method] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "streamtwl", "version": __version__},
        "paths": paths,
        "security": [{}, {"cookie": []}, {"token": []}],  # none, where there is no password
        "components": {"securitySchemes": SCHEMES},
    }
