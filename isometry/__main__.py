"""``python -m isometry`` is the command ``isometry``."""

from isometry.cli import main

if __name__ == "__main__":
    main()
