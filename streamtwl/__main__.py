"""`python -m streamtwl` is `streamtwl`."""

from streamtwl.cli import main

if __name__ == "__main__":
    main()
