"""streamtwl listens to live sound, names what it hears, and keeps thinking while it listens."""

import os

__version__ = "0.1.0"

# Small products, a window at a time: threads of numpy's own would wait for a core that is not free,
# which made a log-mel hop 16 ms instead of 0.3 on a busy machine. Read when numpy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
