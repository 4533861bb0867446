"""``python -m monai_flowssn``: the same as ``monai-flowssn``."""

from monai_flowssn.cli import main

if __name__ == "__main__":
    main()
