"""Every error that streamtwl raises on purpose.

StreamtwlError               anything below; the command line prints it in one line
├── UsageError               a wrong option or value (exit 2)
│   └── ConfigError          a pipeline file: names the key and what it takes
├── AudioError               a source that cannot be opened or read
│   ├── DeviceError          a microphone: absent, busy, unplugged; an address that is refused
│   └── UnreachableError     a server that does not answer: worth another try
├── ModelError               weights that are absent, damaged, or do not fit
│   └── NoAnswerError        a host that did not answer in time
├── SoundsError              taught sounds: none of that name, damaged, an archive that is refused
├── ControlError             a running streamtwl that cannot be reached, or refuses
├── EndpointError            a language model's server: absent, slow, refusing, talking nonsense
│   └── NoLabelError         it answers, but with none of the labels
├── MessageError             what was received is not a message of this schema
│   └── UnknownKind          a kind of message that a newer version has: skip it
└── SinkError                a port in use, a file that cannot be written
    └── JournalError         the journal cannot be opened, read or written
        └── DamagedJournal   it is damaged

A message says what was wrong, with the value, and what to do next.
"""

from msgspec import MsgspecError

# what decoders of JSON, MessagePack and TOML raise where it is damaged, or nested too deep
UNDECODABLE = (MsgspecError, UnicodeDecodeError, RecursionError)


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
    """A live source that is not available.

    A microphone that is absent, busy or gone, PortAudio itself missing, or a network address whose
    server refuses it.
    """


class UnreachableError(AudioError):
    """A server that does not answer, or broke the connection: another try may succeed."""


class ModelError(StreamtwlError):
    """Weights that are absent, damaged, or do not fit the pipeline."""


class NoAnswerError(ModelError):
    """A host of weights did not answer in time: it is not tried again at every start."""


class SoundsError(StreamtwlError):
    """A taught sound that is not there or cannot be kept, or an archive that is refused."""


class ControlError(StreamtwlError):
    """A running streamtwl that cannot be reached over its control socket, or refuses."""


class EndpointError(StreamtwlError):
    """The server of a language model does not answer, refuses, or gives no label.

    `retry_after_s` is how long it wants to be left alone; `passing`, whether it may answer later.
    """

    def __init__(self, message: str, retry_after_s: float = 0.0, passing: bool = True) -> None:
        super().__init__(message)
        self.retry_after_s, self.passing = retry_after_s, passing


class NoLabelError(EndpointError):
    """The server answers, but with none of the labels."""


class MessageError(StreamtwlError):
    """A payload that is not a message, or one of another major version of the schema."""


class UnknownKind(MessageError):
    """A kind of message that a newer version added: skip it."""


class SinkError(StreamtwlError):
    """An output that cannot be opened: a port in use, a folder that cannot be written."""


class JournalError(SinkError):
    """A journal that cannot be opened, read or written, or has another version's layout."""


class DamagedJournal(JournalError):
    """A journal that is damaged."""
