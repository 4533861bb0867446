"""Print the table of one or several evaluations, with the interval over patients.

python scripts/report.py RUN/per_case.csv [OTHER/per_case.csv ...]
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import torch

from monai_flowssn.metrics import bootstrap_interval


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", type=Path, nargs="+", help="per_case.csv of an evaluation")
    for path in parser.parse_args().tables:
        try:
            with path.open(newline="") as file:
                rows = list(csv.DictReader(file))
        except OSError as error:
            raise SystemExit(
                f"{path} does not open ({error.strerror}); give the per_case.csv of an evaluation."
            ) from error
        if not rows or "patient" not in rows[0]:
            raise SystemExit(f"{path} is no table of cases; give the per_case.csv of an evaluation.")
        patients = [row["patient"] for row in rows]
        print(
            f"{path}: {len(rows)} cases of {len(set(patients))} patients; two empty masks have IoU 1; foreground only"
        )
        print(f"  {'metric (convention, number of draws)':38} {'mean':>8}  95 % interval over patients")
        for name in list(rows[0])[2:]:
            interval = bootstrap_interval(torch.tensor([float(row[name]) for row in rows]), patients)
            print(f"  {name:38} {interval.mean:8.4f}  [{interval.low:.4f}, {interval.high:.4f}]")


if __name__ == "__main__":
    main()
