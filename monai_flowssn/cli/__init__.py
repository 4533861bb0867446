"""The command line: ``monai-flowssn COMMAND --help``."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

__all__ = ["COMMANDS", "main"]

# what a command is for, and the module that has its `add_arguments(parser)` and `run(arguments)`, imported when it is asked for,
# because MONAI takes seconds; a module with PASSES_OPTIONS hands options that it does not know to another program
COMMANDS = {
    "list": ("bundles, data sets, and what goes after them", "shipped"),
    "copy": ("a bundle into a folder of your own", "copying"),
    "check": ("read your data once: statistics, faults, and the options that fit", "checking"),
    "train": ("monai.bundle's `run training` of a bundle", "workflows"),
    "evaluate": ("monai.bundle's `run evaluating`", "workflows"),
    "infer": ("monai.bundle's `run inference`", "workflows"),
    "report": ("the table of evaluations, with intervals over patients", "report"),
    "package": ("one folder of a trained model, to share or to serve", "package"),
    "label": ("a MONAI Label server", "label"),
    "dicom-out": ("results as DICOM objects of their study", "dicom_out"),
    "pacs": ("draw a study of a PACS, and store the results beside it", "pacs"),
    "convert": ("a checkpoint of the Flow-SSN authors into a bundle's weights", "convert"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command.

    Args:
        arguments: of the command line; those of this process by default.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    name = arguments[0] if arguments else ""
    if name not in COMMANDS:
        _about().parse_args(arguments or ["--help"])
        return
    module = importlib.import_module(f"monai_flowssn.cli.{COMMANDS[name][1]}")
    parser = argparse.ArgumentParser(
        f"monai-flowssn {name}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    parsed, options = parser.parse_known_args(arguments[1:])
    if options and not getattr(module, "PASSES_OPTIONS", False):
        parser.error(f"unrecognized arguments: {' '.join(options)}")
    parsed.command, parsed.options = name, options
    try:
        module.run(parsed)
    except ValueError as error:
        raise SystemExit(f"monai-flowssn {name}: {error}") from error
    except ModuleNotFoundError as error:
        if error.name not in ("highdicom", "dicomweb_client", "pydicom"):
            raise
        raise SystemExit(f"monai-flowssn {name}: needs {error.name}; pip install 'monai_flowssn[dicom]'") from error
    except BrokenPipeError:  # of `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None


def _about() -> argparse.ArgumentParser:
    from monai_flowssn import __version__

    lines = "\n".join(f"  {name:10} {about}" for name, (about, _) in COMMANDS.items())
    parser = argparse.ArgumentParser(
        "monai-flowssn",
        description="Stochastic medical image segmentation: p(mask | image) from several experts.",
        epilog=f"commands (monai-flowssn COMMAND --help):\n{lines}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of those below")
    return parser
