"""What a data set of several annotators is like, and what is wrong with it, before anything is trained on it."""

from monai_flowssn.check.cases import CaseFacts, Entry, describe, entries, read
from monai_flowssn.check.overlay import Options, suggest, write_overlay
from monai_flowssn.check.picture import draw_outlines
from monai_flowssn.check.summary import differences, leaks, summary

__all__ = [
    "CaseFacts",
    "Entry",
    "Options",
    "describe",
    "differences",
    "draw_outlines",
    "entries",
    "leaks",
    "read",
    "suggest",
    "summary",
    "write_overlay",
]
