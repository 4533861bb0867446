"""Render every bundle from configs/ and its recipe.yaml.

    python scripts/render_bundles.py [--into FOLDER]

A bundle is one self-contained file per workflow, because MONAI Label and downloaded bundles read one file; what they share
is written once, in configs/. Run it after every change there; a test compares.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import yaml
from monai.bundle import ConfigParser

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "configs"
WORKFLOWS = {"train": ["train", "mlflow"], "evaluate": ["evaluate", "mlflow"], "inference": ["inference"]}
SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
HEADER = "# Rendered by scripts/render_bundles.py from configs/ and recipe.yaml: change those.\n"


def render(recipe: dict[str, Any], configs: Path) -> None:
    """Write the configs folder of one bundle."""
    configs.mkdir(parents=True, exist_ok=True)
    for workflow, fragments in WORKFLOWS.items():
        methods = [f"methods/{name}" for name in recipe["methods"]]
        names = ["common", *fragments, f"profiles/{recipe['profile']}", *methods, f"data/{recipe['data']}"]
        merged = merge(names, recipe.get("overrides", {}))
        text = yaml.safe_dump(merged, sort_keys=False, width=120, default_flow_style=False)
        (configs / f"{workflow}.yaml").write_text(HEADER + text, encoding="utf-8")
    about = merge(["metadata"], recipe["metadata"])
    first = {key: about[key] for key in recipe["metadata"] if key in about}  # what is this bundle's own comes first
    metadata = {"schema": SCHEMA, **first, **about}
    (configs / "metadata.json").write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")
    for name in ("multi_gpu_train.yaml", "multi_gpu_evaluate.yaml", "logging.conf"):
        shutil.copy(CONFIGS / name, configs / name)


def merge(names: list[str], overrides: dict[str, Any]) -> dict[str, Any]:
    """Merge fragments as MONAI merges several config files: a later one wins."""
    parser = ConfigParser()
    for name in names:
        parser.update(ConfigParser.load_config_file(CONFIGS / f"{name}.yaml"))
    parser.update(overrides)
    return {key: value for key, value in parser.get().items() if key != "_meta_"}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--into", type=Path, default=ROOT / "bundles", help="folder of the rendered bundles")
    into = arguments.parse_args().into
    for path in sorted((ROOT / "bundles").glob("*/recipe.yaml")):
        render(yaml.safe_load(path.read_text(encoding="utf-8")), into / path.parent.name / "configs")


if __name__ == "__main__":
    main()
