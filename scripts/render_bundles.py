"""Render every bundle from configs/ and its recipe.yaml.

    python scripts/render_bundles.py [--into FOLDER]

A bundle is one self-contained file per workflow, because MONAI Label and downloaded bundles read one file; what they share
is written once, in configs/. A recipe names methods, each a folder of configs/methods: the networks are in their model.yaml,
one on the other, the numbers in their laptop.yaml. A workflow gets only the ids that it reads, and an id that no workflow
reads is an error. Run it after every change there; a test compares.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from monai.bundle import ConfigParser

from monai_flowssn import __version__
from monai_flowssn.options import unread_ids

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "configs"
WORKFLOWS = ("train", "evaluate", "inference")
SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
HEADER = "# Rendered by scripts/render_bundles.py from configs/ and recipe.yaml: change those.\n"
WIDTH = 130


def render(bundle: Path, configs: Path) -> None:
    """Write the configs folder of one bundle."""
    recipe = yaml.safe_load((bundle / "recipe.yaml").read_text(encoding="utf-8"))
    configs.mkdir(parents=True, exist_ok=True)
    methods = [f"methods/{name}/{part}" for part in ("model", "laptop") for name in recipe["methods"]]
    methods = [name for name in methods if (CONFIGS / f"{name}.yaml").exists()]
    fragments = {name: ["common", name, f"data/{recipe['data']}", *methods] for name in WORKFLOWS}
    merged = {name: merge(parts) for name, parts in fragments.items()}
    unread = {name: unread_ids(config) for name, config in merged.items()}
    nowhere = set.intersection(*map(set, unread.values()))
    if nowhere:
        raise SystemExit(
            f"{recipe['methods']}: no workflow reads {', '.join(sorted(nowhere))}; remove it from configs/."
        )
    for name, config in merged.items():
        comments = {path: text for part in fragments[name] for path, text in read_comments(part)}
        read = {key: value for key, value in config.items() if key not in unread[name]}
        (configs / f"{name}.yaml").write_text(HEADER + "\n".join(lines(read, comments)) + "\n", encoding="utf-8")
    about = merge(["metadata"], recipe["metadata"])
    about["required_packages_version"]["monai_flowssn"] = __version__
    first = {key: about[key] for key in recipe["metadata"] if key in about}  # what is this bundle's own comes first
    metadata = {"schema": SCHEMA, **first, **about, **measured(bundle / "models" / "shipped.json")}
    (configs / "metadata.json").write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")
    for name in (*(f"multi_gpu_{workflow}.yaml" for workflow in WORKFLOWS), "logging.conf"):
        shutil.copy(CONFIGS / name, configs / name)


def measured(shipped: Path) -> dict[str, Any]:
    """Return the metrics of the weights that a bundle has, if it has some."""
    if not shipped.is_file():
        return {}
    return {"eval_metrics": {name: mean for name, (mean, _, _) in json.loads(shipped.read_text())["test"].items()}}


def merge(names: list[str], overrides: dict[str, Any] | None = None) -> dict[str, Any]:
    """Merge fragments as MONAI merges several config files: a later one wins."""
    parser = ConfigParser()
    for name in names:
        parser.update(ConfigParser.load_config_file(CONFIGS / f"{name}.yaml"))
    parser.update(overrides or {})
    return {key: value for key, value in parser.get().items() if key != "_meta_"}


def read_comments(name: str) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield ids of a fragment that have comments, with the lines above them and the one beside them."""
    above, place = "", [(-1, "")]
    for line in (CONFIGS / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[1:]:  # the first is the file's own
        found = re.match(r"( *)([\w:]+):(?: .*?)??(?:  (# .*))?$", line)
        if found:
            place = [(indent, key) for indent, key in place if indent < len(found[1])] + [(len(found[1]), found[2])]
            if above or found[3]:
                yield "::".join(key for _, key in place[1:]), (above, f"  {found[3]}" if found[3] else "")
        above = above + line.strip() + "\n" if line.lstrip().startswith("#") else ""


def lines(value: Any, comments: dict[str, tuple[str, str]], name: str = "", indent: str = "") -> Iterator[str]:
    """Yield the lines of a YAML file, each collection in one where it fits, with the comments."""
    pairs = value.items() if isinstance(value, dict) else ((None, each) for each in value)
    for key, each in pairs:
        path = f"{name}::{key}" if name else str(key)
        above, beside = comments.get(path, ("", "")) if key is not None else ("", "")
        yield from (indent + text for text in above.splitlines())
        flow = (
            yaml.safe_dump(each, default_flow_style=True, sort_keys=False, width=10**6).removesuffix("\n...\n").strip()
        )
        start = f"{indent}-" if key is None else f"{indent}{key}:"
        if not isinstance(each, (dict, list)) or not each or len(start) + len(flow) + 1 <= WIDTH:
            yield f"{start} {flow}{beside}"
        elif key is None:
            first, *rest = lines(each, comments, path, indent + "  ")
            yield from (f"{start} {first.strip()}", *rest)
        else:
            yield f"{start}{beside}"
            yield from lines(each, comments, path, indent if isinstance(each, list) else indent + "  ")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--into", type=Path, default=ROOT / "bundles", help="folder of the rendered bundles")
    into = arguments.parse_args().into
    for path in sorted((ROOT / "bundles").glob("*/recipe.yaml")):
        render(path.parent, into / path.parent.name / "configs")


if __name__ == "__main__":
    main()
