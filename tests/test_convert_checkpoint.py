"""Checkpoints in the authors' naming, computed once by formulas under their names and once by what they are converted to."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import pytest
import torch
from authors_networks import arguments, checkpoint_shapes, random_checkpoint, transformer_args, unet_args
from authors_networks import draw as authors_draw
from monai.bundle import ConfigParser, ConfigWorkflow

from monai_flowssn.cli import convert as script
from monai_flowssn.cli import main
from monai_flowssn.cli.shipped import folder

LIDC_BASE = unet_args(1, 32, [1, 2, 4, 8], size=128, outputs=4, head=64)
REFUGE_BASE = unet_args(3, 32, [1, 2, 2, 4, 6], size=256, outputs=4, blocks=2, head=64)
PUBLISHED = {  # arguments, and the parameters of base and flow that the authors' notebooks print
    "continuous LIDC": (arguments(LIDC_BASE, unet_args(2, 16, [1, 1, 1], size=128, outputs=2)), 14_290_660, 150_850),
    "continuous REFUGE": (
        arguments(REFUGE_BASE, unet_args(2, 32, [1, 1, 1, 1], size=256, outputs=2, head=32)),
        14_626_180,
        787_010,
    ),
    "autoregressive LIDC": (
        arguments(LIDC_BASE, transformer_args((1, 8), 64, 1, size=128, channels=1)),
        14_290_660,
        345_432,
    ),
    "autoregressive REFUGE": (
        arguments(REFUGE_BASE, transformer_args((8, 8), 128, 2, size=256, channels=3)),
        14_626_180,
        915_480,
    ),
}


@pytest.fixture(params=PUBLISHED)
def published(request: pytest.FixtureRequest) -> tuple[dict, int, int]:
    return PUBLISHED[request.param]


def test_the_names_here_make_as_many_parameters_as_the_authors_count(published: tuple[dict, int, int]) -> None:
    args, *expected = published
    parameters = [{k: v for k, v in part.items() if not k.endswith("tgt_mask")} for part in checkpoint_shapes(args)]
    assert [sum(map(math.prod, part.values())) for part in parameters] == expected


def test_published_checkpoints_fit_the_bundles(published: tuple[dict, int, int]) -> None:
    args, *_ = published
    with torch.device("meta"):
        state = {key: torch.empty(shape) for part in checkpoint_shapes(args) for key, shape in part.items()}
        bundle, weights, options = script.convert({"args": args, "model_state_dict": state})
        build(bundle, options).load_state_dict(weights)
    assert options["spatial_size"] == [args["base_input_shape"][1]] * 2


def build(bundle: str, options: dict) -> torch.nn.Module:
    parser = ConfigParser()
    parser.read_config(str(folder("bundles") / bundle / "configs" / "inference.yaml"))
    parser.update({key: value for key, value in options.items() if not key.startswith("+")})
    return parser.get_parsed_content("network_def")


@pytest.mark.parametrize("method", ["continuous", "autoregressive"])
@pytest.mark.parametrize(
    ("data", "overlays"), [("LIDC", ["paper"]), ("REFUGE", ["paper", "data/refuge", "paper_refuge"])]
)
def test_the_recipes_have_the_networks_that_were_published(method: str, data: str, overlays: list[str]) -> None:
    args, *_ = PUBLISHED[f"{method} {data}"]
    parser = ConfigParser()
    own = folder("configs") / "methods" / f"flowssn_{method}"
    files = [(folder("configs") if "/" in name else own) / f"{name}.yaml" for name in overlays]
    parser.read_config([folder("bundles") / f"flowssn_{method}_segmentation" / "configs" / "inference.yaml", *files])
    with torch.device("meta"):
        state = {key: torch.empty(shape) for part in checkpoint_shapes(args) for key, shape in part.items()}
        _, weights, _ = script.convert({"args": args, "model_state_dict": state})
        network = parser.get_parsed_content("network_def")
    assert {k: v.shape for k, v in network.state_dict().items()} == {k: v.shape for k, v in weights.items()}


SMALL = {
    "continuous": arguments(
        unet_args(1, 16, [1, 2], size=8, outputs=4), unet_args(2, 16, [1, 1], size=8, outputs=2, head=16)
    ),
    "continuous, two blocks, three levels, RGB": arguments(
        unet_args(3, 16, [1, 2, 2], size=8, outputs=4, blocks=2),
        unet_args(2, 32, [1, 1, 1], size=8, outputs=2, head=32),
    ),
    "continuous, learnt deviation": arguments(
        unet_args(1, 16, [1, 2], size=8, outputs=4), unet_args(2, 16, [1, 1], size=8, outputs=2), base_std=0.0
    ),
    "autoregressive": arguments(
        unet_args(1, 16, [1, 2], size=8, outputs=4), transformer_args((1, 4), 16, 1, size=8, channels=1)
    ),
    "autoregressive, gated, two blocks and heads": arguments(
        unet_args(3, 16, [1, 2], size=8, outputs=4),
        transformer_args((2, 2), 16, 2, size=8, channels=3, heads=2) | {"flow_type": "gated"},
        base_std=0.5,
    ),
}


@torch.no_grad()
@pytest.mark.parametrize("args", SMALL.values(), ids=SMALL.keys())
def test_a_converted_checkpoint_draws_what_the_original_draws(args: dict, tmp_path: Path) -> None:
    checkpoint = random_checkpoint(args)
    script.write(checkpoint, tmp_path)
    bundle = script.KINDS[args["model"]][-1]
    parser = ConfigParser()
    parser.read_config([str(folder("bundles") / bundle / "configs" / "inference.yaml"), str(tmp_path / "options.yaml")])
    model = parser.get_parsed_content("network_def").eval()
    model.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    image = torch.randn(2, *args["base_input_shape"])
    noise = model.draw_noise(image, 1)
    expected = authors_draw(args, checkpoint["model_state_dict"], image, noise[0][:, 0])
    assert expected.std(dim=(0, 2, 3)).min() > 0.05  # no constant map
    torch.testing.assert_close(model.sample(image, 1, noise)[:, 0], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("namespace", [False, True])
def test_the_command_reads_files_without_running_them(
    namespace: bool, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    checkpoint = random_checkpoint(SMALL["continuous"])
    if namespace:
        checkpoint["args"] = argparse.Namespace(**checkpoint["args"])
    torch.save(checkpoint, tmp_path / "theirs.pt")
    command = ["convert", str(tmp_path / "theirs.pt"), "--bundle_root", str(tmp_path)]
    main(command)
    said = capsys.readouterr().out
    assert (tmp_path / "models" / "options.yaml").read_text() in said
    assert "flowssn_continuous_segmentation" in said
    checkpoint["extra"] = Path("code")  # anything that is not data
    torch.save(checkpoint, tmp_path / "theirs.pt")
    with pytest.raises(SystemExit, match="no checkpoint that loads safely"):
        main(command)


@pytest.mark.filterwarnings("ignore")
def test_the_bundle_draws_with_the_options_and_turns_images_to_rows_by_columns(
    tiny_options: dict, tmp_path: Path
) -> None:
    script.write(random_checkpoint(SMALL["continuous"]), tmp_path / "models")
    used = {key: tiny_options[key] for key in ("bundle_root", "dataset_dir", "draws")}
    files = [folder("bundles") / "flowssn_continuous_segmentation" / "configs" / "inference.yaml"]
    files = [str(path) for path in (*files, tmp_path / "models" / "options.yaml")]
    few = {"limit": 2, "network_def::steps": 2, "data::crops": "anywhere"}
    flow = ConfigWorkflow(files, workflow_type="inference", logging_file=False, **used, **few)
    flow.initialize()
    flow.run()
    assert len(list((tmp_path / "runs" / "inference").rglob("*_draws.nii.gz"))) == 2
    case = flow.parser.get_parsed_content("dataset::data")[0]
    seen = flow.parser.get_parsed_content("preprocessing")(case)["image"]
    turn = flow.parser.get_parsed_content("data").geometry
    for transform in flow.parser.get_parsed_content("preprocessing").transforms:
        case = case if transform in turn else transform(case)
    assert torch.equal(seen[0].as_tensor(), case["image"][0].as_tensor().T)


def test_a_weight_without_counterpart_is_named(tmp_path: Path) -> None:
    checkpoint = random_checkpoint(SMALL["continuous"])
    checkpoint["model_state_dict"]["flow_net.encoder_blocks.0.1.qkv.weight"] = torch.zeros(1)
    with pytest.raises(ValueError, match=r"no counterpart: flow_net\.encoder_blocks\.0\.1\.qkv\.weight"):
        script.write(checkpoint, tmp_path)


def test_a_missing_weight_is_named(tmp_path: Path) -> None:
    checkpoint = random_checkpoint(SMALL["continuous"])
    del checkpoint["model_state_dict"]["flow_net.stem.bias"]
    with pytest.raises(RuntimeError, match=r"flow\.stem\.bias"):
        script.write(checkpoint, tmp_path)
    assert not (tmp_path / "model.pt").exists()


@pytest.mark.parametrize(
    ("name", "changed", "message"),
    [
        ("continuous", {"model": "ssn"}, "model is 'ssn'"),
        ("continuous", {"net": "pixel_cnn"}, "pixel_cnn"),
        ("continuous", {"cond_flow": True}, "its base alone"),
        ("continuous", {"cond_base": False}, "its base alone"),
        ("continuous", {"attention_resolutions": [2]}, r"attention_resolutions is \[2\]"),
        ("continuous", {"base_attention_resolutions": [-1]}, r"attention_resolutions is \[-1\]"),
        ("autoregressive", {"num_flows": 2}, "num_flows is 2"),
        ("autoregressive", {"flow_type": "volume_preserving"}, "flow_type is 'volume_preserving'"),
    ],
)
def test_what_our_networks_cannot_be_is_refused(name: str, changed: dict, message: str, tmp_path: Path) -> None:
    checkpoint = random_checkpoint(SMALL[name])
    checkpoint["args"] = {**checkpoint["args"], **changed}
    with pytest.raises(ValueError, match=rf"cannot be converted: .*{message}"):
        script.write(checkpoint, tmp_path)


def test_another_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="The checkpoint has no 'args'"):
        script.write({"state_dict": {}}, tmp_path)
