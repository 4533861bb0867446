"""MONAI Label's server with drawings beside its event loop, known names alone, and an end within seconds."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, File, Form, HTTPException, Request, UploadFile
from fastapi.background import BackgroundTasks
from monailabel.config import settings
from monailabel.endpoints.infer import ResultType, run_inference
from monailabel.endpoints.user.auth import RBAC
from monailabel.utils.async_tasks import utils as tasks

from monai_flowssn.label import page
from monai_flowssn.label.infer import device_of
from monai_flowssn.label.lanes import BusyError, Lanes, StoppedError
from monai_flowssn.label.requests import parsed

__all__ = ["KnownNames", "prepare"]

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
END = 2.5  # seconds from a signal to the end of what would not end by itself


class KnownNames:
    """Answer 400 to a request for a model, scoring or strategy that there is not; MONAI Label's own fails later, or unheard.

    Args:
        app: the ASGI application behind.
        names: the names that each kind of request may end in, by the path before them.
    """

    def __init__(self, app: Any, names: Mapping[str, Mapping[str, Any]]) -> None:
        self.app, self.names = app, names

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Send) -> None:
        """Pass a request on, or refuse it."""
        kind, _, name = scope.get("path", "").strip("/").rpartition("/")
        if scope.get("method") == "POST" and kind in self.names and name not in self.names[kind]:
            known = ", ".join(map(repr, self.names[kind])) or "none"
            body = json.dumps({"detail": f"{kind} knows no {name!r}; choose one of {known}."}).encode()
            headers = [(b"content-type", b"application/json")]
            await send({"type": "http.response.start", "status": 400, "headers": headers})
            await send({"type": "http.response.body", "body": body})
            return
        await self.app(scope, receive, send)


def prepare(server: FastAPI, lanes: Lanes) -> None:
    """Let MONAI Label's server, which runs already, draw in lanes, show a page, and end within seconds of a signal.

    Args:
        server: MONAI Label's.
        lanes: where it draws.
    """
    server.include_router(_drawing(lanes), prefix=settings.MONAI_LABEL_API_STR)
    server.router.routes.insert(0, server.router.routes.pop())  # before the route of the same path
    server.include_router(page.router, prefix=settings.MONAI_LABEL_API_STR)
    for number in (signal.SIGTERM, signal.SIGINT):
        _end_on(number, lanes)


def _drawing(lanes: Lanes) -> APIRouter:
    router = APIRouter()
    may = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))

    @router.post("/infer/{model}", dependencies=[may], include_in_schema=False)
    async def infer(
        request: Request,
        background_tasks: BackgroundTasks,
        model: str,
        image: str = "",
        session_id: str = "",
        params: Annotated[str, Form()] = "{}",
        file: Annotated[UploadFile | None, File()] = None,
        label: Annotated[UploadFile | None, File()] = None,
        output: ResultType | None = None,
    ) -> Any:
        """Do what MONAI Label's own does, in the device's lane."""

        async def gone() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass

        try:
            if not (image or session_id or file):
                raise ValueError("there is no image; give the name of a study, a session, or a file.")
            device = device_of(parsed(params))
            arguments = (background_tasks, model, image, session_id, params, file, label, output)
            return await lanes.run(device, lambda: run_inference(*arguments), gone)
        except BaseException as error:
            for task in background_tasks.tasks:  # they remove temporary files, and are not run after an error
                task.func(*task.args, **task.kwargs)
            if isinstance(error, ValueError):
                raise HTTPException(400, str(error)) from error
            if isinstance(error, (BusyError, StoppedError)):
                raise HTTPException(503, str(error), headers={"Retry-After": "5"}) from error
            raise

    return router


def _end_on(number: signal.Signals, lanes: Lanes) -> None:
    before: Any = signal.getsignal(number)  # uvicorn's: it takes no more requests, and waits for those it has

    def end(signum: int, frame: Any) -> None:
        lanes.close()
        for executor in tasks.background_executors.values():
            executor.shutdown(wait=False, cancel_futures=True)
        for method in list(tasks.background_processes):
            tasks.stop_background_task(method)
        last = threading.Timer(END, os._exit, [128 + signum])
        last.daemon = True
        last.start()
        before(signum, frame)

    signal.signal(number, end)
