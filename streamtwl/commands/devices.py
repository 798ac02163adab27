"""`streamtwl devices`: the microphones."""

from rich.console import Console
from rich.table import Table

from streamtwl.errors import DeviceError


def devices() -> None:
    """List the microphones: index, name, channels, default sample rate.

    Exits with 1 where there is none.
    """
    from streamtwl.audio.microphone import list_inputs

    inputs = list_inputs()
    if not inputs:
        raise DeviceError("PortAudio sees no microphone: plug one in, or try --demo")
    table = Table("index", "name", "channels", "default rate", "")
    for device in inputs:
        table.add_row(
            str(device["index"]),
            device["name"],
            str(device["channels"]),
            f"{device['default_rate_hz']:.0f} Hz",
            "default" if device["is_default"] else "",
        )
    Console().print(table)
