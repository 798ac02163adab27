"""Which services run: those that the settings name."""

import importlib
from collections.abc import Iterator

import msgspec

from streamtwl.config import ServicesSettings
from streamtwl.errors import UsageError
from streamtwl.services.service import Service


def chosen(settings: ServicesSettings) -> Iterator[str]:
    """Yield the names of the services that are switched on: whose first setting is not empty."""
    for name in settings.__struct_fields__:
        if next(iter(msgspec.to_builtins(getattr(settings, name)).values())):
            yield name


def make(settings: ServicesSettings) -> list[Service]:
    """Return the services that are switched on; raises UsageError, as where a package is absent."""
    services: list[Service] = []
    for name in chosen(settings):
        try:
            module = importlib.import_module(f"streamtwl.services.{name}")
        except ModuleNotFoundError as error:
            what = (error.name or "").partition(".")[0]
            if what == "streamtwl":
                raise UsageError(f"--{name}: this streamtwl has no such service") from None
            raise UsageError(
                f"--{name} needs the package {what}: pip install 'streamtwl[{name}]'"
            ) from None
        services.append(module.make(getattr(settings, name)))
    return services
