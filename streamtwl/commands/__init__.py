"""The commands, one a file: its options, as typer takes them, and what it does.

A file imports at its start what its options need, and the rest where the command runs, so that
`streamtwl --help` does not wait for NumPy. Errors are turned into a line and an exit code in
`streamtwl.cli`, which also says which commands there are.
"""
