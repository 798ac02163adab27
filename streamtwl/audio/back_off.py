"""How long to wait before a source that was lost is opened again."""

BACK_OFF_S = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)  # after each failure; the last one from then on
