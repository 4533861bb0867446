import gc
import importlib.metadata
import logging
import math
import os
import signal
from pathlib import Path

import pytest
import torch
import yaml
from ignite.engine import Events
from ignite.metrics import Average
from mlflow import MlflowClient
from monai.bundle import ConfigParser
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import CheckpointLoader, CheckpointSaver, StatsHandler, ValidationHandler
from torch import nn

from monai_flowssn.handlers.mlflow_run import MLflowRunHandler

BATCH = {"image": torch.ones(2, 1), "label": torch.ones(2, 1)}


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    """One database for all tests: MLflow takes seconds to make one."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/new/mlflow.db"


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name in ("SupervisedTrainer", "SupervisedEvaluator"):
        logging.getLogger(f"ignite.engine.engine.{name}").setLevel(logging.INFO)


@pytest.fixture
def run_of(uri):
    return lambda handler: MlflowClient(uri).get_run(handler.run_id)


class Raise:
    """Do ``action`` in iteration 3."""

    def __init__(self, action):
        self.action = action

    def attach(self, engine):
        engine.add_event_handler(Events.ITERATION_COMPLETED(once=3), self)

    def __call__(self, engine):
        if isinstance(self.action, BaseException):
            raise self.action
        self.action(engine)


def evaluator_of(network, *handlers, action=None):
    metrics = {"val_ged_v_n16": Average(output_transform=lambda output: output["pred"].mean().detach())}
    handlers = [*handlers, *([Raise(action)] if action else [])]
    return SupervisedEvaluator(
        "cpu", [BATCH] * 3, network, decollate=False, key_val_metric=metrics, val_handlers=list(handlers)
    )


def trainer_of(handler, *others, action=None, validate=True, epochs=2, first=()):
    network = nn.Sequential(nn.Linear(1, 2), nn.Linear(2, 1))
    optimizer = torch.optim.SGD(network.parameters(), 1e-3)
    handlers = [*first, handler, *others, *([Raise(action)] if action else [])]
    if validate:
        handlers.append(ValidationHandler(1, evaluator_of(network, handler)))
    return SupervisedTrainer(
        "cpu", epochs, [BATCH] * 5, network, optimizer, nn.MSELoss(), decollate=False, train_handlers=handlers
    )


def files_of(uri, run_id):
    client, paths, folders = MlflowClient(uri), [], [None]
    while folders:
        for info in client.list_artifacts(run_id, folders.pop()):
            (folders if info.is_dir else paths).append(info.path)
    return sorted(paths)


def test_a_run_holds_all_that_tells_it_apart(uri, run_of, tmp_path):
    for name in ("manifest.json", "a.csv", "b.csv", "panel.png"):
        (tmp_path / name).write_text(name)
    handler = MLflowRunHandler(
        "all",
        uri,
        params={"lr": 1e-3, "long": "x" * 9000, **{f"p{i}": i for i in range(150)}},
        tags={"method": "ssn", "data": "toy", "n": 16},
        artifacts={"per_case": str(tmp_path / "*.csv"), "looks": [str(tmp_path / "*.png"), "nothing/*.png"]},
        manifest=tmp_path / "manifest.json",
        config={"net": {"_target_": "Net", "where": tmp_path}},
        loss_every=2,
    )
    trainer_of(handler, CheckpointSaver(str(tmp_path), {"h": handler}, save_final=True, final_filename="a.pt")).run()
    run = run_of(handler)
    assert run.info.status == "FINISHED"
    assert run.info.run_name.startswith("ssn-toy-2")
    experiment = MlflowClient(uri).get_experiment(run.info.experiment_id)
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    assert {k: run.data.tags[k] for k in ("method", "data", "n")} == {"method": "ssn", "data": "toy", "n": "16"}
    params = run.data.params
    assert params["p149"] == "149"
    assert params["lr"] == "0.001"
    assert (params["parameters_total"], params["parameters_0"], params["parameters_1"]) == ("7", "4", "3")
    assert params["version_torch"] == importlib.metadata.version("torch")
    assert len(params["data_fingerprint"]) == 16
    assert {"seed", "device", "machine", "max_epochs", "epoch_length"} <= set(params)
    history = {m: MlflowClient(uri).get_metric_history(handler.run_id, m) for m in ("train_loss", "val_ged_v_n16")}
    assert [point.step for point in history["train_loss"]] == [2, 4, 6, 8, 10]
    assert [point.step for point in history["val_ged_v_n16"]] == [1, 2]
    assert all(math.isfinite(point.value) for points in history.values() for point in points)
    assert files_of(uri, handler.run_id) == [
        "config.yaml",
        "data/manifest.json",
        "looks/panel.png",
        "per_case/a.csv",
        "per_case/b.csv",
    ]
    config = Path(MlflowClient(uri).download_artifacts(handler.run_id, "config.yaml", str(tmp_path))).read_text()
    assert yaml.safe_load(config) == {"net": {"_target_": "Net", "where": str(tmp_path)}}


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize(
    ("action", "status"),
    [
        (RuntimeError("boom"), "FAILED"),
        (KeyboardInterrupt("ctrl c"), "KILLED"),
        (lambda engine: signal.raise_signal(signal.SIGTERM), "KILLED"),
    ],
)
def test_the_way_a_training_ends_is_told_and_goes_on(uri, run_of, tmp_path, action, status, before):
    handler = MLflowRunHandler("ends", uri)
    saver = CheckpointSaver(str(tmp_path), {"mlflow": handler}, save_final=True, final_filename="last.ckpt")
    monai = [StatsHandler(output_transform=lambda output: output["loss"]), saver]  # both raise by themselves
    trainer = trainer_of(handler, *([] if before else monai), action=action, first=monai if before else ())
    with pytest.raises(type(action) if isinstance(action, BaseException) else SystemExit):
        trainer.run()
    assert run_of(handler).info.status == status
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_an_exception_goes_on_without_any_other_handler(uri, run_of):
    handler = MLflowRunHandler("ends", uri)
    with pytest.raises(RuntimeError, match="boom"):
        trainer_of(handler, action=RuntimeError("boom"), validate=False).run()
    assert run_of(handler).info.status == "FAILED"


def test_a_crash_in_the_validation_fails_the_training_run(uri, run_of):
    handler = MLflowRunHandler("ends", uri)
    evaluator = evaluator_of(nn.Linear(1, 1), handler, action=RuntimeError("boom"))
    with pytest.raises(RuntimeError, match="boom"):
        trainer_of(handler, ValidationHandler(1, evaluator), validate=False).run()
    assert run_of(handler).info.status == "FAILED"


def test_early_termination_is_a_finish(uri, run_of):
    handler = MLflowRunHandler("ends", uri)
    trainer_of(handler, action=lambda engine: engine.terminate()).run()
    assert run_of(handler).info.status == "FINISHED"


def test_a_run_that_is_left_behind_does_not_stay_running(uri, run_of):
    handler = MLflowRunHandler("ends", uri)
    trainer_of(handler, validate=False).fire_event(Events.EPOCH_STARTED)
    assert run_of(handler).info.status == "RUNNING"
    run_id = handler.run_id
    del handler
    gc.collect()
    assert MlflowClient(uri).get_run(run_id).info.status == "KILLED"


def test_two_trainings_at_once_are_two_runs(uri, run_of):
    inner, outer = MLflowRunHandler("two", uri), MLflowRunHandler("two", uri)
    trainer_of(outer, action=lambda engine: trainer_of(inner, epochs=1).run(), epochs=3).run()
    assert inner.run_id != outer.run_id
    assert run_of(inner).info.run_name != run_of(outer).info.run_name
    history = [MlflowClient(uri).get_metric_history(h.run_id, "val_ged_v_n16") for h in (inner, outer)]
    assert [len(points) for points in history] == [1, 3]


def test_an_evaluation_alone_is_a_run_of_its_own(uri, run_of):
    handler = MLflowRunHandler("evaluation", uri)
    evaluator = evaluator_of(nn.Linear(1, 1), handler)
    evaluator.run()
    first = handler.run_id
    evaluator.run()
    assert first != handler.run_id
    assert run_of(handler).info.status == "FINISHED"
    assert set(run_of(handler).data.metrics) == {"val_ged_v_n16"}
    (point,) = MlflowClient(uri).get_metric_history(handler.run_id, "val_ged_v_n16")
    assert point.step == 0  # a bar, not a point of a curve


def test_a_resumed_training_continues_its_run(uri, run_of, tmp_path):
    def train(epochs, path=None):
        handler = MLflowRunHandler("resume", uri, params={"lr": epochs}, loss_every=5)
        trainer = trainer_of(handler, epochs=epochs, validate=False)
        objects = {"trainer": trainer, "mlflow": handler}
        saver = CheckpointSaver(str(tmp_path), objects, save_final=True, final_filename="last.ckpt")
        saver.attach(trainer)
        if path:
            CheckpointLoader(path, objects).attach(trainer)  # behind the run handler
        trainer.run()
        return handler

    first = train(1)
    second = train(3, str(tmp_path / "last.ckpt"))
    assert second.run_id == first.run_id
    assert run_of(second).info.status == "FINISHED"
    assert run_of(second).data.params["lr"] == "1"
    assert [p.step for p in MlflowClient(uri).get_metric_history(first.run_id, "train_loss")] == [5, 10, 15]


def test_a_run_of_another_server_is_continued_by_a_new_one(uri, run_of):
    handler = MLflowRunHandler("resume", uri)
    handler.load_state_dict({"run_id": "0" * 32})
    trainer_of(handler, validate=False).run()
    assert run_of(handler).data.tags["continues"] == "0" * 32


def test_an_unreachable_server_costs_one_warning(monkeypatch, tmp_path):
    handler = MLflowRunHandler("none", "http://127.0.0.1:9", artifacts={"x": str(tmp_path)})
    trainer = trainer_of(handler)
    with pytest.warns(UserWarning, match="going on without it") as record:
        trainer.run()
    assert len(record) == 1
    assert trainer.state.epoch == 2
    assert handler.state_dict() == {"run_id": None}


def test_a_server_that_goes_away_is_not_asked_again_until_the_end(uri):
    handler = MLflowRunHandler("away", uri, loss_every=1)
    asked = []

    class Away:
        def __getattr__(self, name):
            def call(*args, **kwargs):
                asked.append(name)
                raise ConnectionError("away")

            return call

    def go(engine):
        handler._client = Away()

    trainer = trainer_of(handler, action=go, epochs=4)
    with pytest.warns(UserWarning, match="away") as record:
        trainer.run()
    assert len(record) == 1
    assert trainer.state.epoch == 4
    assert asked == ["log_batch", "log_batch", "set_terminated"]


def test_what_a_short_outage_held_back_is_sent_at_the_end(uri, run_of):
    handler = MLflowRunHandler("away", uri, loss_every=1)
    real = []

    def go(engine):
        real.append(handler._client)
        handler._client = None

    trainer = trainer_of(handler, action=go, epochs=4, validate=False)
    trainer.add_event_handler(Events.EPOCH_STARTED(once=4), lambda: setattr(handler, "_client", real[0]))
    with pytest.warns(UserWarning, match="going on without it"):
        trainer.run()
    assert len(MlflowClient(uri).get_metric_history(handler.run_id, "train_loss")) == 20
    assert run_of(handler).info.status == "FINISHED"


def test_the_environment_is_kept(uri, run_of, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    handler = MLflowRunHandler("environment", uri)
    trainer_of(handler, validate=False).run()
    assert run_of(handler).info.status == "FINISHED"
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "3"


def test_other_processes_of_a_distributed_training_are_silent(uri, monkeypatch):
    monkeypatch.setattr("ignite.distributed.get_rank", lambda: 1)
    handler = MLflowRunHandler("rank", uri)
    trainer = trainer_of(handler, validate=False)
    monkeypatch.undo()
    trainer.run()
    assert handler.run_id is None


def test_a_workflow_logs_the_config_it_is_part_of(uri, run_of, tmp_path):
    """A small workflow with a file behind it."""
    network = {"_target_": "torch.nn.Linear", "in_features": 1, "out_features": 1}
    workflow = {
        "imports": ["$from monai_flowssn.workflows import Data"],
        "split": "val",
        "lr": 0.1,
        "mlflow": {
            "_target_": "monai_flowssn.workflows.Run",
            **dict.fromkeys(("bundle_root", "output_dir", "ckpt_dir"), str(tmp_path)),
            **dict.fromkeys(("method", "workflow"), "toy"),
            "data": "$Data(name='toy', cases=list, channels=1, num_classes=2, raters=1, intensity_range=None)",
            "tracking_uri": None,
        },
        "network": network,
        "train": {
            "handlers": [
                "@mlflow",
                {"_target_": "ValidationHandler", "interval": 1, "validator": "@validate::evaluator"},
            ],
            "trainer": {
                "_target_": "SupervisedTrainer",
                "device": "cpu",
                "max_epochs": 1,
                "train_data_loader": "$[{'image': torch.ones(1, 1), 'label': torch.ones(1, 1)}]",
                "network": "@network",
                "optimizer": "$torch.optim.SGD(@network.parameters(), @lr)",
                "loss_function": "$torch.nn.MSELoss()",
                "decollate": False,
                "train_handlers": "@train::handlers",
            },
        },
        "validate": {
            "handlers": ["@mlflow"],
            "evaluator": {
                "_target_": "SupervisedEvaluator",
                "device": "cpu",
                "val_data_loader": "$[{'image': torch.ones(1, 1), 'label': torch.ones(1, 1)}]",
                "network": "@network",
                "decollate": False,
                "val_handlers": "@validate::handlers",
            },
        },
    }
    files = [tmp_path / "train.yaml", tmp_path / "data.yaml"]
    files[0].write_text(yaml.safe_dump(workflow))
    files[1].write_text(yaml.safe_dump({"mlflow::tracking_uri": uri, "lr": 0.5}))
    (tmp_path / "manifest.json").write_text("{}")
    parser = ConfigParser(ConfigParser.load_config_files([str(file) for file in files]))
    parser.get_parsed_content("train::trainer").run()
    handler = parser.get_parsed_content("mlflow")
    run = run_of(handler)
    assert run.info.status == "FINISHED"
    assert run.data.tags["data"] == "toy"
    assert run.data.params["lr"] == "0.5"
    assert run.data.params["split"] == "val"
    logged = Path(MlflowClient(uri).download_artifacts(handler.run_id, "config.yaml", str(tmp_path))).read_text()
    assert yaml.safe_load(logged) == parser.get()
    assert yaml.safe_load(logged)["lr"] == 0.5


def test_the_terms_of_the_loss_are_logged_beside_it(uri):
    handler = MLflowRunHandler("terms", uri, loss_every=1)
    trainer = trainer_of(handler)
    trainer.inferer = lambda inputs, network: {"kl": network(inputs).mean().square()}
    trainer.loss_function = lambda terms, label: terms["kl"] + 1
    trainer.run()
    client = MlflowClient(uri)
    kl, loss = (client.get_metric_history(handler.run_id, f"train_{name}") for name in ("kl", "loss"))
    assert [point.value + 1 for point in kl] == pytest.approx([point.value for point in loss])
    assert len(loss) == 10
