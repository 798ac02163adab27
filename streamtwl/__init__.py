"""streamtwl listens to live sound, names what it hears, and keeps thinking while it listens."""

__version__ = "0.1.0"
