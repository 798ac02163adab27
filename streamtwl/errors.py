"""Every error that streamtwl raises on purpose.

StreamtwlError               anything below; the command line prints it in one line
├── UsageError               a wrong option or value (exit 2)
│   └── ConfigError          a pipeline file: names the key and what it takes
├── AudioError               a source that cannot be opened or read
│   └── DeviceError          a microphone: absent, busy, unplugged
├── ModelError               weights that are absent, damaged, or do not fit
└── SinkError                a port in use, a file that cannot be written

A message says what was wrong, with the value, and what to do next.
"""


class StreamtwlError(Exception):
    """Base of all errors raised on purpose; `exit_code` is what the command line exits with."""

    exit_code = 1


class UsageError(StreamtwlError):
    """A wrong option or value."""

    exit_code = 2


class ConfigError(UsageError):
    """A pipeline file that cannot be read, or a key with a wrong name, type or value."""


class AudioError(StreamtwlError):
    """A file, pipe or device that cannot be opened or read as audio."""


class DeviceError(AudioError):
    """A microphone that is absent, busy or gone, or PortAudio itself missing."""


class ModelError(StreamtwlError):
    """Weights that are absent, damaged, or do not fit the pipeline."""


class SinkError(StreamtwlError):
    """An output that cannot be opened: a port in use, a folder that cannot be written."""
