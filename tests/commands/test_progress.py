"""Progress of what takes long: bars in a terminal, a line now and then in a log."""

import pytest

from streamtwl.commands import progress


def test_a_log_gets_a_line_a_minute(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with progress.bars(["scoring clips", "cells"]) as advance:
        advance("scoring clips", 1, 9)
        now += 61
        advance("scoring clips", 2, 9)
        advance("scoring clips", 3, 9)
        now += 59
        advance("cells", 1, 2)
        now += 1
        advance("cells", 2, 2)
    assert capsys.readouterr().err == "scoring clips: 2 of 9\ncells: 2 of 2\n"


def test_a_short_job_says_nothing_in_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.bars(["cells"]) as advance:
        advance("cells", 1, 1)
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_bars(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with progress.bars(["cells"]) as advance:
        advance("cells", 1, 2)
    assert "cells" in capsys.readouterr().err
