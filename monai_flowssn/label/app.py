"""The app: every bundle of a folder as a model, uncertainty as a score, and a strategy that uses it."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from fastapi import HTTPException
from monailabel.config import settings
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.exception import MONAILabelError, MONAILabelException
from monailabel.interfaces.tasks.batch_infer import BatchInferTask
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.tasks.activelearning.first import First
from monailabel.tasks.activelearning.random import Random
from monailabel.utils.others.generic import device_map, remove_file
from monailabel.utils.sessions import Sessions

from monai_flowssn import __version__
from monai_flowssn.label.datastore import FolderOfStudies
from monai_flowssn.label.infer import DrawInferTask, device_of
from monai_flowssn.label.lanes import Lanes
from monai_flowssn.label.origin import OwnOrigin
from monai_flowssn.label.raters import RaterTrainTask
from monai_flowssn.label.serve import KnownNames, prepare
from monai_flowssn.label.uncertainty import MostUncertain, SampleUncertainty

logger = logging.getLogger(__name__)


class FlatSessions(Sessions):
    """MONAI Label's sessions without archives, whose files Python 3.11 unpacks to any place that their names say."""

    def add_session(self, data_file: str, expiry: int = 0, uncompress: bool = False, session_id: Any = None) -> Any:
        """Keep what was sent."""
        if uncompress:
            remove_file(data_file if Path(data_file).is_dir() else str(Path(data_file).parent))
            raise HTTPException(400, "archives are not unpacked; send the files themselves.")
        return super().add_session(data_file, expiry, session_id=session_id)


class BatchOnAnyDevice(BatchInferTask):
    """MONAI Label's inference of many images, which without this divides them between the GPUs of a machine that has none."""

    def __call__(self, request: dict[str, Any], datastore: Datastore, infer: Any) -> dict[str, Any]:
        """Return what MONAI Label does."""
        several = request.get("multi_gpu", True) and torch.cuda.is_available()
        return super().__call__({**request, "multi_gpu": several}, datastore, infer)


class StochasticSegmentation(MONAILabelApp):
    """MONAI Label's bundle app, for models that answer with several segmentations.

    Every folder in ``<app_dir>/model`` is a bundle and a model. Controls and answers are those of the bundle itself
    (``displayable_configs`` and :class:`~monai_flowssn.transforms.AnswerViewerd`), so that MONAI Label's own ``monaibundle`` app
    gives them too; what this one adds is scoring by uncertainty, the strategy ``most_uncertain``, and training on all raters.

    Args:
        app_dir: folder of this app.
        studies: folder of the images, or the address of a DICOMweb server.
        conf: MONAI Label's ``--conf`` settings. Of ours are ``origins`` (:class:`OwnOrigin`), ``max_voxels``
            (:class:`DrawInferTask`), and ``waiting`` and ``seconds`` (:class:`Lanes`).
    """

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        folders = sorted(path.parent for path in Path(app_dir, "model").glob("*/configs"))
        self.bundles = {folder.name: str(folder) for folder in folders}
        super().__init__(
            app_dir=app_dir,
            studies=studies,
            conf=conf,
            name=f"monai_flowssn {__version__}",
            description="Stochastic segmentation: several plausible masks per image, and how much they differ",
            version=__version__,
        )

    def server_mode(self, mode: bool) -> None:
        """Draw in lanes from now on, with models that are loaded, and admit known names from known web pages alone."""
        from monailabel.app import app  # makes the server, which imports this

        super().server_mode(mode)
        for name, task in self._infers.items():
            for device in device_map().values():
                logger.info("%s draws for the first time on %s", name, device)
                task.warm(device)
        limits: dict[str, Any] = {
            key: kind(self.conf[key]) for key, kind in (("waiting", int), ("seconds", float)) if key in self.conf
        }
        prepare(app, self, Lanes(**limits))
        allowed = filter(None, self.conf.get("origins", "").split(","))
        names = {
            "infer": self._infers,
            "batch/infer": self._infers,
            "train": self._trainers,
            "scoring": self._scoring_methods,
            "activelearning": self._strategies,
        }
        app.middleware_stack = OwnOrigin(KnownNames(app.middleware_stack, names), allowed)

    def device_of(self, params: Mapping[str, Any]) -> str:
        """Return the device that a request names, or the first one."""
        return device_of(params)

    def init_datastore(self) -> Datastore:
        """Return the studies; those of a folder stay in it."""
        if self.studies.startswith(("http://", "https://")):
            return super().init_datastore()
        return FolderOfStudies(
            self.studies,
            extensions=settings.MONAI_LABEL_DATASTORE_FILE_EXT,
            auto_reload=settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD,
            read_only=settings.MONAI_LABEL_DATASTORE_READ_ONLY,
        )

    def infer(self, request: dict[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Return MONAI Label's answer; what is wrong with a request is told to the client."""
        try:
            self._check_image(request.get("image"))
            return super().infer(request, datastore)
        except MONAILabelException as error:
            raise HTTPException(400 if error.error == MONAILabelError.INVALID_INPUT else 500, error.msg) from error
        except (ValueError, RuntimeError) as error:
            cause = root(error)
            raise HTTPException(400 if isinstance(cause, ValueError) else 500, str(cause)) from error

    def infer_wsi(self, request: dict[str, Any], datastore: Datastore | None = None) -> Any:
        """Refuse slides, which would be drawn beside the lanes."""
        raise HTTPException(400, "whole-slide images are not drawn; send POST /infer/MODEL an image.")

    def batch_infer(self, request: dict[str, Any], datastore: Datastore | None = None) -> Any:
        """Draw of many images, in a process of its own."""
        self._refuse_sync()
        return super().batch_infer(request, datastore)

    def scoring(self, request: dict[str, Any], datastore: Datastore | None = None) -> Any:
        """Score the studies, in a process of its own."""
        self._refuse_sync()
        return super().scoring(request, datastore)

    def train(self, request: dict[str, Any]) -> Any:
        """Train, in a process of its own, whose last line is the cause where it fails: ``GET /train/`` shows the last ones."""
        self._refuse_sync()
        try:
            return super().train(request)
        except Exception as error:
            logger.exception("the training failed")
            cause = root(error)
            raise SystemExit(f"The cause: {type(cause).__name__}: {cause}") from error

    def _refuse_sync(self) -> None:
        if self._server_mode:
            raise HTTPException(400, "run_sync would hold the server; leave it out, and ask for the state with GET.")

    def _check_image(self, image: Any) -> None:
        """Refuse what is neither a study nor a file that was sent with the request or its session."""
        if not isinstance(image, str):
            raise ValueError(f"image is {image!r}; give the name of a study.")
        path, sessions = Path(image), self.sessions()
        sent = path.parent == Path(tempfile.gettempdir())
        in_session = sessions is not None and path.is_relative_to(sessions.store_path)
        # MONAI Label takes a path that exists, from wherever the server was started, before a study of that name
        study = image in self.datastore().list_images() and not path.exists()
        if not study and (".." in path.parts or not (sent or in_session)):
            raise ValueError(f"{image!r} is no study of this server.")

    def bundle_path(self, model: str) -> str:
        """Return the bundle of a model; MONAI Label puts it on the path of Python, else what a request says."""
        return super().bundle_path(model) or self.app_dir

    def _load_sessions(self, load: bool = False) -> Sessions | None:
        return FlatSessions(settings.MONAI_LABEL_SESSION_PATH, settings.MONAI_LABEL_SESSION_EXPIRY) if load else None

    def init_batch_infer(self) -> BatchOnAnyDevice:
        """Return the inference of many images."""
        return BatchOnAnyDevice()

    def init_infers(self) -> dict[str, InferTask]:
        """Return one model per bundle that has been trained."""
        tasks = {name: DrawInferTask(path, self.conf) for name, path in self.bundles.items()}
        return {name: task for name, task in tasks.items() if task.valid}

    def init_trainers(self) -> dict[str, TrainTask]:
        """Return one training per bundle."""
        return {name: RaterTrainTask(path, self.conf) for name, path in self.bundles.items()}

    def init_strategies(self) -> dict[str, Strategy]:
        """Return the ways to choose the next image."""
        return {"most_uncertain": MostUncertain(), "first": First(), "random": Random()}

    def init_scoring_methods(self) -> dict[str, ScoringMethod]:
        """Return the scores that images can get."""
        return {"sample_uncertainty": SampleUncertainty(self._infers)} if self._infers else {}


def root(error: BaseException) -> BaseException:
    """Return the cause of an error: MONAI wraps what its transforms and configs raise in RuntimeErrors."""
    while isinstance(error, RuntimeError) and error.__cause__ is not None:
        error = error.__cause__
    return error
