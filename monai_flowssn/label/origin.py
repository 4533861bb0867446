"""Web pages from elsewhere do not reach the server through the browser of somebody who does."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

__all__ = ["OwnOrigin"]

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class OwnOrigin:
    """Answer 403 to requests that a web page of another origin sends, and to those for a host name that is not this machine's.

    Browsers say in ``Origin`` whose page sends a request; other clients, such as 3D Slicer, send none. A name that is not this
    machine's may have been pointed here by that page (DNS rebinding); an address cannot.

    Args:
        app: the ASGI application behind.
        allowed: other origins to admit, such as ``https://viewer.hospital.org``; the server may be called by their names, too.
    """

    def __init__(self, app: Any, allowed: Iterable[str] = ()) -> None:
        self.app = app
        self.allowed = {origin.rstrip("/") for origin in allowed}
        named = {urlsplit(each).hostname for each in self.allowed}
        self.names = {"localhost", socket.gethostname().lower(), socket.getfqdn().lower(), *named}

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Send) -> None:
        """Pass a request on, or refuse it."""
        headers = {name: value.decode("latin-1") for name, value in scope.get("headers", [])}
        if scope["type"] == "http" and not self.admits(headers.get(b"host", ""), headers.get(b"origin")):
            text = "this server answers its own pages alone; start it with --conf origins ADDRESS to admit those of another."
            await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": text.encode()})
            return
        await self.app(scope, receive, send)

    def admits(self, host: str, origin: str | None) -> bool:
        """Whether a request for this host from a page of this origin may pass.

        >>> own = OwnOrigin(None, ["https://viewer.hospital.org"])
        >>> own.admits("127.0.0.1:8000", None), own.admits("127.0.0.1:8000", "http://127.0.0.1:8000")
        (True, True)
        >>> own.admits("localhost:8000", "https://viewer.hospital.org"), own.admits("localhost:8000", "https://else.org")
        (True, False)
        >>> own.admits("else.org:8000", "http://else.org:8000")
        False
        """
        name = urlsplit(f"//{host}").hostname or ""
        known = name in self.names or _is_address(name)
        return known and (origin is None or origin in self.allowed or urlsplit(origin).netloc == host)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
