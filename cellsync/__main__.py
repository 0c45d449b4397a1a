"""Let ``python -m cellsync`` be the command ``cellsync``."""

from cellsync.cli import main

if __name__ == "__main__":
    main()
