"""The thread of the display."""

import threading
import time

from streamtwl.sinks.lines import Lines
from streamtwl.sinks.screen import Screen
from tests.conftest import PATIENCE_S
from tests.sinks.test_lines import label


class Counted(Lines):
    """Counts how often it is asked to show what there is."""

    def __init__(self) -> None:
        super().__init__(as_json=True, lossless=False)
        self.times = 0
        self.shown = threading.Event()

    def show(self) -> None:
        self.times += 1
        super().show()
        self.shown.set()


def test_lines_are_printed_when_they_come_and_the_thread_sleeps_until_then(capsys):
    view = Counted()
    screen = Screen(view)
    try:
        for number in (1, 2):
            view.shown.clear()
            screen.emit(label("Dog", seq=number))
            assert view.shown.wait(PATIENCE_S)
        time.sleep(0.3)
        assert view.times == 2
    finally:
        screen.close()
    assert view.times == 3  # what came last
    assert len(capsys.readouterr().out.splitlines()) == 2
