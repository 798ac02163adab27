"""A running `listen` and the commands of its user: a Unix socket that only its owner can open."""
