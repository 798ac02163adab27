"""File names as text: a name is bytes, and need not be UTF-8 or one line."""


def readable(text: str) -> str:
    r"""Return a name, or a message with one in it, as valid Unicode.

    Bytes that are not UTF-8 become escapes such as \xff. Names stay distinct and can be
    converted back: the shell's printf '%b' takes the same escapes.
    """
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def one_line(text: str) -> str:
    r"""Return text for a terminal: control characters as \n and \x1b, so that it is one line."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode()
        for each in readable(text)
    )
