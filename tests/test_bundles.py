"""Every bundle: in sync with configs/, complete, and running."""

from __future__ import annotations

import csv
import json
import traceback
from pathlib import Path

import mlflow
import monai.bundle
import nibabel
import pytest
import torch
from ignite.engine import Events
from monai.bundle import ConfigParser, ConfigWorkflow
from tiny_scales import VARIANTS, tiny_scale

from monai_flowssn.cli import main

ROOT = Path(__file__).resolve().parent.parent
BUNDLES = sorted(path.parent for path in (ROOT / "bundles").glob("*/recipe.yaml"))
BUNDLE = ROOT / "bundles" / "flowssn_continuous_segmentation"  # for what all have in common
METHODS = ROOT / "configs" / "methods"
BOTH = "$monai.handlers.from_engine(['draws', 'label'])"

# MONAI, ignite and MLflow warn about themselves; what is ours is tested as an error elsewhere
pytestmark = pytest.mark.filterwarnings("ignore")


def workflow(bundle: Path, file: str, options: dict, variant: str = "") -> ConfigWorkflow:
    """The workflow of a bundle, or of a variant on it, at the scale of the tests."""
    files = [str(bundle / "configs" / f"{file}.yaml")]
    files += [str(METHODS / f"{variant}.yaml")] if variant else []
    few = {"validate::inferer::n": 3} if file == "train" else {}
    kind = "train" if file == "train" else "inference"
    options = {**tiny_scale(variant or bundle.name), **few, **options}
    return ConfigWorkflow(config_file=files, workflow_type=kind, logging_file=False, **options)


def run(bundle: Path, file: str, options: dict, variant: str = "") -> ConfigWorkflow:
    flow = workflow(bundle, file, options, variant)
    flow.initialize()
    flow.run()
    flow.finalize()
    return flow


@pytest.fixture(params=BUNDLES, ids=lambda path: path.name)
def bundle(request: pytest.FixtureRequest) -> Path:
    return request.param


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
    root = tmp_path / "[a] é#2"  # a folder may be called so; MONAI reads # as ::
    tiny_options["bundle_root"] = f"${str(root)!r}".replace("#", "\\x23")
    run(bundle, "train", tiny_options)
    assert (root / "models" / "model.pt").is_file()
    assert (root / "models" / "last.ckpt").is_file()

    run(bundle, "evaluate", tiny_options)
    with (root / "runs" / "evaluate" / "per_case.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert {row["patient"] for row in rows} == {"200", "201", "202"}
    assert all(float(row["test_ged_v_n4"]) >= -1e-6 for row in rows)

    tracked = mlflow.MlflowClient(f"sqlite:///{root}/runs/mlflow.db")
    experiment = tracked.get_experiment_by_name("monai_flowssn")
    runs = {each.data.tags["run"]: each for each in tracked.search_runs([experiment.experiment_id])}
    assert {each.info.status for each in runs.values()} == {"FINISHED"}
    assert "val_ged_v_n3" in runs["train"].data.metrics
    mean = sum(float(row["test_ged_v_n4"]) for row in rows) / 6
    assert runs["evaluate"].data.metrics["test_ged_v_n4"] == pytest.approx(mean, abs=1e-5)
    assert runs["train"].data.params["seed"] == "0"
    saved = {path.name for path in (root / "runs" / "mlruns").rglob("*") if path.is_file()}
    assert {"config.yaml", "manifest.json", "MLmodel", "per_case.csv"} < saved
    assert any(name.endswith("_panel.png") for name in saved)

    run(bundle, "inference", {**tiny_options, "limit": 1})
    folder = root / "runs" / "inference"
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
    last = torch.load(tmp_path / "models" / "last.ckpt", weights_only=True)
    assert last["ema"]["updates"] == 9  # three batches an epoch


def test_a_model_is_used_as_it_was_trained_or_not_at_all(tiny_options: dict, tmp_path: Path) -> None:
    run(BUNDLE, "train", tiny_options)
    written = ConfigParser.load_config_file(tmp_path / "models" / "options.yaml")
    assert written["data::num_classes"] == 2
    assert written["network_def::flow::channels"] == [4, 4]
    other = {**tiny_options, "data::intensity_range": [0, 255], "data::class_values": [0, 1], "limit": 1}
    for file in ("evaluate", "inference"):
        with pytest.raises(RuntimeError) as error:
            run(BUNDLE, file, other)
        said = "".join(traceback.format_exception(error.value))
        assert "--data::intensity_range was None and is [0, 255]; --data::class_values was [] and is [0, 1]." in said
        run(BUNDLE, file, {**other, "force_options": True})


def test_a_fold_has_its_own_folder_and_does_not_continue_another(
    tiny_options: dict, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folds = {**tiny_options, "data::folds": 3, "resume": True}
    for fold in (0, 1):
        run(BUNDLE, "train", {**folds, "data::fold": fold})
        run(BUNDLE, "evaluate", {**folds, "data::fold": fold})
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
    used = {**tiny_scale(BUNDLE.name), **folds, "data::fold": 1}
    settings = [f"{name}={json.dumps(value)}" for name, value in used.items() if name != "bundle_root"]
    model = tmp_path / "models" / "fold_1" / "model.pt"
    made = tmp_path / "made_segmentation"
    packing = ["package", str(BUNDLE), str(made), "--model", str(model), "--set", *settings]
    with pytest.raises(SystemExit, match=r"--data::intensity_range was None and is \[0, 255\]"):
        main([*packing, "data::intensity_range=[0, 255]"])
    assert not made.exists()
    main(packing)
    assert (made / "models" / "options.yaml").is_file()
    config = str(made / "configs" / "inference.json")
    monai.bundle.run(config_file=config, bundle_root=str(made), limit=1, logging_file=False)
    assert list((tmp_path / "made_segmentation" / "runs" / "inference").rglob("*_mean.nii.gz"))
    other = workflow(BUNDLE, "train", {**folds, "data::fold": 1, "ckpt_dir": str(tmp_path / "models" / "fold_0")})
    other.initialize()
    with pytest.raises(RuntimeError) as error:
        other.run()
    assert "--data::fold was 0 and is 1" in "".join(traceback.format_exception(error.value))


def test_the_tracking_server_is_the_option_or_the_environment_s(
    tiny_options: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    for options, uri in (
        ({}, "http://127.0.0.1:9"),
        ({"mlflow::tracking_uri": "sqlite:///own.db"}, "sqlite:///own.db"),
    ):
        flow = workflow(BUNDLE, "train", {**tiny_options, **options})
        assert flow.parser.get_parsed_content("mlflow").tracking_uri == uri


@pytest.mark.parametrize(("workers", "finish"), [(0, 0), (2, 0), (0, 0.5)])
def test_a_resumed_training_is_the_one_that_was_never_interrupted(
    tiny_options: dict, tmp_path: Path, workers: int, finish: float
) -> None:
    options = {**tiny_options, "network_def::base::dropout": 0.2, "train::dataloader::num_workers": workers}
    options |= {"max_epochs": 4, "finish": finish}
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
    options = {**tiny_options, "max_epochs": 50, "lr": 0.0, "optimisation::early_stop_patience": 2}
    flow = run(BUNDLE, "train", options)
    assert flow.parser.get_parsed_content("train::trainer").state.epoch == 3
    again = run(BUNDLE, "train", {**options, "resume": True})
    assert again.parser.get_parsed_content("train::trainer").state.epoch == 3


def test_checkpoint_of_another_architecture_is_named(tiny_options: dict, tmp_path: Path) -> None:
    run(BUNDLE, "train", tiny_options)
    other = {**tiny_options, "resume": True, "network_def::base::channels": [8, 8]}
    with pytest.raises(RuntimeError) as error:  # MONAI's, around ours
        run(BUNDLE, "train", other)
    assert "does not fit what is trained" in str(error.value.__cause__)


def test_a_training_that_begins_with_loaded_weights_averages_from_them(tiny_options: dict, tmp_path: Path) -> None:
    """As MONAI Label's does, which puts a loader before the other handlers."""
    run(BUNDLE, "train", tiny_options)
    first = tmp_path / "models" / "model.pt"
    loader = {"_target_": "CheckpointLoader", "load_path": str(first), "load_dict": {"model": "@network"}}
    validation = {"_target_": "ValidationHandler", "validator": "@validate::evaluator", "interval": 1}
    options = {**tiny_options, "bundle_root": str(tmp_path / "second"), "seed": 1, "lr": 0.0}
    run(BUNDLE, "train", {**options, "train::handlers": [loader, validation]})
    again = tmp_path / "second" / "models" / "model.pt"
    torch.testing.assert_close(torch.load(again, weights_only=True), torch.load(first, weights_only=True))


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_train(variant: str, tiny_options: dict, tmp_path: Path) -> None:
    bundle = ROOT / "bundles" / f"{variant.split('/')[0]}_segmentation"
    plain = workflow(bundle, "train", tiny_options).parser.get_parsed_content("network_def")
    flow = run(bundle, "train", tiny_options, variant)
    network = flow.parser.get_parsed_content("network_def")
    kinds = [(type(net), {name: part.shape for name, part in net.state_dict().items()}) for net in (network, plain)]
    assert kinds[0] != kinds[1]
    assert (tmp_path / "models" / "model.pt").is_file()


def test_p2sam_takes_the_weights_of_a_sam_file(tmp_path: Path) -> None:
    sam = pytest.importorskip("segment_anything").build_sam_vit_b()
    torch.save(sam.state_dict(), tmp_path / "sam.pth")
    config = ConfigParser()
    config.read_config(
        [ROOT / "bundles" / "p2sam_segmentation" / "configs" / "train.yaml", METHODS / "p2sam" / "sam.yaml"]
    )
    config["sam_checkpoint"] = str(tmp_path / "sam.pth")
    network = config.get_parsed_content("network_def").eval()
    assert torch.equal(network.encoder.vit.neck[0].weight, sam.image_encoder.neck[0].weight)
    assert torch.equal(network.decoder.upscaling[0].weight, sam.mask_decoder.output_upscaling[0].weight)
    assert network.sample(torch.zeros(1, 1, 32, 32), 2).shape == (1, 2, 2, 32, 32)


def test_training_on_one_rater(tiny_options: dict) -> None:
    flow = workflow(BUNDLE, "train", {**tiny_options, "data::train_rater": 1})
    flow.initialize()
    dataset = flow.parser.get_parsed_content("train::dataset")
    items = flow.parser.get_parsed_content("train::dataset::data")
    for item, case in zip(dataset, items):
        assert item["label"].shape == (4, 16, 16)
        assert item["label"][0].sum() == case["label"][1].sum()
        assert (item["label"][1:] == -1).all()
    assert (flow.parser.get_parsed_content("validate::dataset")[0]["label"] >= 0).all()


def test_what_inference_does_with_the_draws_is_a_list_that_can_be_changed(tiny_options: dict, tmp_path: Path) -> None:
    run(BUNDLE, "train", tiny_options)
    maps = {"_target_": "monai_flowssn.transforms.DrawsToMapsd"}
    summary = {"_target_": "monai_flowssn.transforms.SaveSummaryd", "output_dir": "@output_dir"}
    run(BUNDLE, "inference", {**tiny_options, "limit": 1, "postprocessing::transforms": [maps, summary]})
    assert [path.suffix for path in (tmp_path / "runs" / "inference").rglob("*.*")] == [".json"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("train::handlers", [{"_target_": "ValidationHandler", "validator": "@validate::evaluator", "interval": 1}]),
        ("train::trainer::max_epochs", 2),
        ("train::preprocessing::transforms", "$@data.validation(@spatial_size)"),
        ("train::dataset::data", "$@data.items('train', 2)"),
        ("train::optimizer::lr", 0.5),
        (
            "validate::key_metric",
            {
                "mine": {
                    "_target_": "monai_flowssn.handlers.CaseMetricHandler",
                    "metric": "ged",
                    "output_transform": BOTH,
                }
            },
        ),
    ],
)
def test_what_monai_names_can_be_changed(name: str, value: object, tiny_options: dict) -> None:
    flow = workflow(BUNDLE, "train", {**tiny_options, name: value})
    flow.initialize()
    flow.run()
    content = flow.parser.get_parsed_content
    trainer = content("train::trainer")
    found = {
        "train::handlers": lambda: len(content("train::handlers")),
        "train::trainer::max_epochs": lambda: trainer.state.epoch,
        "train::preprocessing::transforms": lambda: len(content("train::dataset").transform.transforms),
        "train::dataset::data": lambda: len(trainer.data_loader.dataset),
        "train::optimizer::lr": lambda: trainer.optimizer.param_groups[0]["initial_lr"],
        "validate::key_metric": lambda: content("validate::evaluator").state.key_metric_name,
    }
    expected = {"train::handlers": 1, "train::preprocessing::transforms": 7, "train::dataset::data": 2}
    assert found[name]() == {**expected, "validate::key_metric": "mine"}.get(name, value)
