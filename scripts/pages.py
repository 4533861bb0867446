"""Write the pages of the public interface from its docstrings; a warning is an error. `scripts/docs` calls it.

python scripts/pages.py FOLDER
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from pathlib import Path

os.environ["PDOC_ALLOW_EXEC"] = "1"  # MONAI asks the machine what it is when it is imported
import pdoc

import monai_flowssn

ELSEWHERE = r"!monai_flowssn\.(__main__|cli|label)"  # the command line, and what needs MONAI Label's environment
PARTS = r"!monai_flowssn\.\w+\.\w+"  # packages show what they export


def main() -> None:
    folder = Path(sys.argv[1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of other packages, when they are imported
        for path in sorted(Path(monai_flowssn.__file__).parent.glob("*/__init__.py")):
            if path.parent.name not in ("cli", "label"):
                importlib.import_module(f"monai_flowssn.{path.parent.name}")
    warnings.simplefilter("error")
    # what pdoc does not see through: the keys of a TypedDict, and the annotations of a NamedTuple
    warnings.filterwarnings(
        "ignore", "Cannot determine where .* is taken from|Error parsing type annotation ForwardRef"
    )
    pdoc.render.configure(docformat="google", math=True, footer_text=f"monai_flowssn {monai_flowssn.__version__}")
    pdoc.pdoc("monai_flowssn", ELSEWHERE, PARTS, output_directory=folder)


if __name__ == "__main__":
    main()
