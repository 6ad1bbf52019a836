"""``python -m gateway`` is ``comfygate``."""

from gateway.cli import main

if __name__ == "__main__":
    main()
