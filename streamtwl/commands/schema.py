"""`streamtwl schema`: the messages on the wire, for programs in other languages."""

import msgspec


def schema() -> None:
    """Print the JSON Schema of all messages on the wire, for programs in other languages."""
    from streamtwl.messages import json_schema

    print(msgspec.json.format(msgspec.json.encode(json_schema()), indent=2).decode())
