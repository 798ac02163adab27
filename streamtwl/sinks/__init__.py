"""Where messages go: ZeroMQ, the terminal, standard output."""
