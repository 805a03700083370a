"""``python -m batchrank``."""

from batchrank.cli import main

if __name__ == "__main__":
    main()
