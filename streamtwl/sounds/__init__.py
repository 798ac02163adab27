"""Sounds that the user teaches: recordings, what the backbones make of them, and what says yes."""
