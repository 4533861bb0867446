"""Every bundle: in sync with configs/, complete, and running."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import traceback
from pathlib import Path

import mlflow
import nibabel
import pytest
import torch
import yaml
from ignite.engine import Events
from monai.bundle import ConfigParser, ConfigWorkflow, verify_metadata, verify_net_in_out

from monai_flowssn.cli import main

ROOT = Path(__file__).resolve().parent.parent
BUNDLES = sorted(path.parent for path in (ROOT / "bundles").glob("*/recipe.yaml"))
BUNDLE = ROOT / "bundles" / "flowssn_continuous_segmentation"  # for what all have in common

# MONAI, ignite and MLflow warn about themselves; what is ours is tested as an error elsewhere
pytestmark = pytest.mark.filterwarnings("ignore")


def workflow(bundle: Path, file: str, options: dict, *overlays: str) -> ConfigWorkflow:
    files = [str(bundle / "configs" / f"{file}.yaml"), *(str(ROOT / "configs" / overlay) for overlay in overlays)]
    kind = "train" if file == "train" else "inference"
    return ConfigWorkflow(config_file=files, workflow_type=kind, logging_file=False, **options)


def run(bundle: Path, file: str, options: dict, *overlays: str) -> ConfigWorkflow:
    flow = workflow(bundle, file, options, *overlays)
    flow.initialize()
    flow.run()
    flow.finalize()
    return flow


@pytest.fixture(params=BUNDLES, ids=lambda path: path.name)
def bundle(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_rendered_files_are_in_sync(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "scripts/render_bundles.py", "--into", tmp_path], check=True)
    rendered = {path.relative_to(tmp_path): path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    shipped = {path.relative_to(ROOT / "bundles"): path.read_text() for path in (ROOT / "bundles").glob("*/configs/*")}
    assert rendered == shipped, "run scripts/render_bundles.py"
    assert len(rendered) == 7 * len(BUNDLES)


def test_metadata_and_network_verify(bundle: Path, tiny_options: dict) -> None:
    metadata = str(bundle / "configs" / "metadata.json")
    verify_metadata(meta_file=metadata, filepath=str(ROOT / "configs" / "metadata_schema.json"))
    tiny = {
        key: tiny_options[key]
        for key in ("backbone", "flow_network", "informed_flow", "plain_unet", "dense_unet", "ladder", "prompt")
    }
    verify_net_in_out("network_def", meta_file=metadata, config_file=str(bundle / "configs" / "inference.yaml"), **tiny)


def test_the_smallest_size_of_the_metadata_is_one_that_the_published_network_takes(bundle: Path) -> None:
    config = ConfigParser()
    config.read_config(str(bundle / "configs" / "inference.yaml"))
    shape = json.loads((bundle / "configs" / "metadata.json").read_text())["network_data_format"]["inputs"]["image"]
    size = [int(str(edge).removesuffix("*n")) for edge in shape["spatial_shape"]]
    if "steps" in config["network_def"]:
        config["network_def"]["steps"] = 2
    network = config.get_parsed_content("network_def").eval()
    assert network(torch.zeros(1, 1, *size)).shape == (1, 2, *size)


@pytest.mark.parametrize("file", ["train", "inference"])
def test_properties_are_complete(bundle: Path, file: str, tiny_options: dict) -> None:
    flow = workflow(bundle, file, tiny_options)
    flow.initialize()
    assert flow.check_properties() == []


def test_train_evaluate_infer(
    bundle: Path, tiny_options: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path.parent)  # a bundle runs from anywhere
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run(bundle, "train", tiny_options)
    assert (tmp_path / "models" / "model.pt").is_file()
    assert (tmp_path / "models" / "last.ckpt").is_file()

    run(bundle, "evaluate", tiny_options)
    with (tmp_path / "runs" / "evaluate" / "per_case.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert {row["patient"] for row in rows} == {"200", "201", "202"}
    assert all(float(row["test_ged_v_n4"]) >= -1e-6 for row in rows)

    tracked = mlflow.MlflowClient(f"sqlite:///{tmp_path}/runs/mlflow.db")
    experiment = tracked.get_experiment_by_name("monai_flowssn")
    runs = {each.data.tags["run"]: each for each in tracked.search_runs([experiment.experiment_id])}
    assert {each.info.status for each in runs.values()} == {"FINISHED"}
    assert "val_ged_v_n3" in runs["train"].data.metrics
    mean = sum(float(row["test_ged_v_n4"]) for row in rows) / 6
    assert runs["evaluate"].data.metrics["test_ged_v_n4"] == pytest.approx(mean, abs=1e-5)
    assert runs["train"].data.params["seed"] == "0"

    run(bundle, "inference", {**tiny_options, "infer_options": {"limit": 1}})
    folder = tmp_path / "runs" / "inference"
    maps = {path.name: nibabel.load(path) for path in folder.rglob("*.nii.gz")}
    assert len(maps) == 6
    for name, image in maps.items():
        assert image.shape[:2] == (16, 16), name
        assert image.header.get_zooms()[:2] == pytest.approx((0.5, 0.5)), name
    assert len(list(folder.rglob("*.png"))) == 1
    summary = json.loads(next(folder.rglob("*.json")).read_text())
    assert json.dumps(summary).count("mm") > 0


def test_resume_continues(tiny_options: dict, tmp_path: Path) -> None:
    run(BUNDLE, "train", tiny_options)
    flow = run(BUNDLE, "train", {**tiny_options, "max_epochs": 3, "resume": True})
    assert flow.parser.get_parsed_content("train::trainer").state.epoch == 3
    assert flow.parser.get_parsed_content("ema").updates == 9  # three batches an epoch


def test_a_fold_has_its_own_folder_and_does_not_continue_another(
    tiny_options: dict, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folds = {**tiny_options, "folds": 3, "resume": True}
    for fold in (0, 1):
        run(BUNDLE, "train", {**folds, "fold": fold})
        run(BUNDLE, "evaluate", {**folds, "fold": fold})
    tested = set()
    for fold in (0, 1):
        groups = {}
        for name in ("train", "evaluate"):
            text = (tmp_path / "runs" / name / f"fold_{fold}" / "manifest.json").read_text()
            groups.update({group: set(about["patient_ids"]) for group, about in json.loads(text)["groups"].items()})
        assert not groups["train"] & groups["val"]
        assert not groups["test"] & (groups["train"] | groups["val"] | tested)
        tested |= groups["test"]
    tables = [tmp_path / "runs" / "evaluate" / f"fold_{fold}" / "per_case.csv" for fold in (0, 1)]
    main(["report", "--pool", *map(str, tables)])
    assert f"2 tables: {2 * len(tested)} cases of {len(tested)} patients" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="cases are in two tables"):
        main(["report", "--pool", str(tables[0]), str(tables[0])])
    settings = [f"{name}={json.dumps(value)}" for name, value in {**folds, "fold": 1}.items() if name != "bundle_root"]
    model = tmp_path / "models" / "fold_1" / "model.pt"
    main(["package", str(BUNDLE), str(tmp_path / "made_segmentation"), "--model", str(model), "--set", *settings])
    made = {"bundle_root": str(tmp_path / "made_segmentation"), "infer_options": {"limit": 1}}
    run(tmp_path / "made_segmentation", "inference", made)
    assert list((tmp_path / "made_segmentation" / "runs" / "inference").rglob("*_mean.nii.gz"))
    other = workflow(BUNDLE, "train", {**folds, "fold": 1, "ckpt_dir": str(tmp_path / "models" / "fold_0")})
    other.initialize()
    with pytest.raises(RuntimeError) as error:
        other.run()
    assert "--fold was 0 and is 1" in "".join(traceback.format_exception(error.value))


def test_the_tracking_server_is_the_option_or_the_environment_s(
    tiny_options: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    for options, uri in (({}, "http://127.0.0.1:9"), ({"tracking_uri": "sqlite:///own.db"}, "sqlite:///own.db")):
        flow = workflow(BUNDLE, "train", {**tiny_options, **options})
        assert flow.parser.get_parsed_content("tracking_uri") == uri


@pytest.mark.parametrize(("workers", "finish"), [(0, 0), (2, 0), (0, 0.5)])
def test_a_resumed_training_is_the_one_that_was_never_interrupted(
    tiny_options: dict, tmp_path: Path, workers: int, finish: float
) -> None:
    options = {**tiny_options, "backbone": {**tiny_options["backbone"], "dropout": 0.2}, "num_workers": workers}
    options |= {"max_epochs": 4, "finish": finish, "lr_to_zero": True}
    states = []
    for stops in ([4], [1, 2, 3, 4]):
        options["bundle_root"] = str(tmp_path / str(len(stops)))
        for epochs in stops:
            flow = workflow(BUNDLE, "train", {**options, "resume": True})
            flow.initialize()
            trainer = flow.parser.get_parsed_content("train::trainer")
            trainer.add_event_handler(Events.EPOCH_COMPLETED(once=epochs), trainer.terminate)  # as if it were killed
            flow.run()
            flow.finalize()
        states.append(torch.load(tmp_path / str(len(stops)) / "models" / "last.ckpt", weights_only=True))
    whole, resumed = states
    for part in ("network", "ema", "optimizer", "lr_scheduler", "finishing"):
        torch.testing.assert_close(resumed[part], whole[part], rtol=0, atol=0)
    assert whole["finishing"]["started"] == (6 if finish else None)


def test_a_resumed_training_remembers_its_best(tiny_options: dict, tmp_path: Path) -> None:
    run(BUNDLE, "train", tiny_options)
    last, best = tmp_path / "models" / "last.ckpt", tmp_path / "models" / "model.pt"
    state = torch.load(last, weights_only=True)
    state["best"]["best"] = -1.0  # as if no later validation could be better
    torch.save(state, last)
    before = best.read_bytes()
    run(BUNDLE, "train", {**tiny_options, "max_epochs": 2, "resume": True})
    assert best.read_bytes() == before


def test_time_limit_ends_in_good_order(tiny_options: dict, tmp_path: Path) -> None:
    flow = run(BUNDLE, "train", {**tiny_options, "max_epochs": 10_000, "time_limit": 0.2})
    trainer = flow.parser.get_parsed_content("train::trainer")
    assert trainer.state.epoch < 10_000
    assert (tmp_path / "models" / "last.ckpt").is_file()


@pytest.mark.parametrize("limit", [{"max_epochs": 2}, {"time_limit": 0.01}, {"cpu_limit": 0.01}])
def test_the_last_epoch_is_validated(limit: dict, tiny_options: dict, tmp_path: Path) -> None:
    run(BUNDLE, "train", {**tiny_options, "max_epochs": 10_000, **limit, "val_interval": 5})
    assert (tmp_path / "models" / "model.pt").is_file()


def test_missing_weights_and_those_of_another_network_are_told(tiny_options: dict, tmp_path: Path) -> None:
    def reason() -> str:
        with pytest.raises(RuntimeError) as error:
            run(BUNDLE, "evaluate", tiny_options)
        return "".join(traceback.format_exception(error.value))

    assert "does not exist; train first" in reason()
    (tmp_path / "models").mkdir()
    torch.save({"weight": torch.zeros(1)}, tmp_path / "models" / "model.pt")
    assert "does not fit this network; give the bundle" in reason()


def test_early_stop(tiny_options: dict) -> None:
    options = {**tiny_options, "max_epochs": 50, "lr": 0.0, "early_stop_patience": 2}
    flow = run(BUNDLE, "train", options)
    assert flow.parser.get_parsed_content("train::trainer").state.epoch == 3
    again = run(BUNDLE, "train", {**options, "resume": True})
    assert again.parser.get_parsed_content("train::trainer").state.epoch == 3


def test_checkpoint_of_another_architecture_is_named(tiny_options: dict, tmp_path: Path) -> None:
    run(BUNDLE, "train", tiny_options)
    other = {**tiny_options, "resume": True, "backbone": {**tiny_options["backbone"], "channels": [8, 8]}}
    with pytest.raises(RuntimeError) as error:  # MONAI's, around ours
        run(BUNDLE, "train", other)
    assert "does not fit what is trained" in str(error.value.__cause__)


def test_laptop_profile_overlays_every_workflow(bundle: Path, tiny_options: dict) -> None:
    for file in ("train", "evaluate", "inference"):
        flow = workflow(bundle, file, {"dataset_dir": tiny_options["dataset_dir"]}, "profiles/laptop.yaml")
        assert flow.parser.get_parsed_content("spatial_size") == [64, 64]
        assert sum(parameter.numel() for parameter in flow.parser.get_parsed_content("network_def").parameters()) < 5e6


VARIANTS = {  # a method file that no bundle is made of -> the bundle that it goes on
    "cflow_planar": "prob_unet",
    "flowssn_dual": "flowssn_autoregressive",
    "flowssn_fixed_prior": "flowssn_continuous",
    "nf_prob_unet_radial": "prob_unet",
    "p2sam_transported": "p2sam",
    "ssn_plus_plus": "ssn",
}


def test_every_method_file_is_in_a_bundle_or_a_variant() -> None:
    used = {name for bundle in BUNDLES for name in yaml.safe_load((bundle / "recipe.yaml").read_text())["methods"]}
    files = {path.stem for path in (ROOT / "configs" / "methods").glob("*.yaml")}
    assert files == used | set(VARIANTS) | {"p2sam_sam"}


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_train(variant: str, tiny_options: dict, tmp_path: Path) -> None:
    bundle = ROOT / "bundles" / f"{VARIANTS[variant]}_segmentation"
    plain = workflow(bundle, "train", tiny_options).parser.get_parsed_content("network_def")
    flow = run(bundle, "train", tiny_options, f"methods/{variant}.yaml")
    network = flow.parser.get_parsed_content("network_def")
    kinds = [(type(net), {name: part.shape for name, part in net.state_dict().items()}) for net in (network, plain)]
    assert kinds[0] != kinds[1]
    assert (tmp_path / "models" / "model.pt").is_file()


def test_p2sam_takes_the_weights_of_a_sam_file(tiny_options: dict, tmp_path: Path) -> None:
    sam = pytest.importorskip("segment_anything").build_sam_vit_b()
    torch.save(sam.state_dict(), tmp_path / "sam.pth")
    options = {**tiny_options, "sam_checkpoint": str(tmp_path / "sam.pth")}
    flow = workflow(ROOT / "bundles" / "p2sam_segmentation", "train", options, "methods/p2sam_sam.yaml")
    network = flow.parser.get_parsed_content("network_def").eval()
    assert torch.equal(network.encoder.vit.neck[0].weight, sam.image_encoder.neck[0].weight)
    assert torch.equal(network.decoder.upscaling[0].weight, sam.mask_decoder.output_upscaling[0].weight)
    assert network.sample(torch.zeros(1, 1, 32, 32), 2).shape == (1, 2, 2, 32, 32)


def test_training_on_one_rater(tiny_options: dict) -> None:
    flow = workflow(BUNDLE, "train", {**tiny_options, "train_rater": 1})
    flow.initialize()
    dataset = flow.parser.get_parsed_content("train::dataset")
    items = flow.parser.get_parsed_content("train::dataset::data")
    for item, case in zip(dataset, items):
        assert item["label"].shape == (4, 16, 16)
        assert item["label"][0].sum() == case["label"][1].sum()
        assert (item["label"][1:] == -1).all()
    assert (flow.parser.get_parsed_content("validate::dataset")[0]["label"] >= 0).all()
