"""`python -m ferrox` is `ferrox`."""

from ferrox.cli import main

if __name__ == "__main__":
    main()
