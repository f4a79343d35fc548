"""Who may see the page and set limits with it: on this machine, only the user who serves it (and root).

The page can change limits, so a loopback address is not protection enough where several people share a
machine, nor against a web site that resolves its own name to 127.0.0.1.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import psutil
from bokeh.server.auth_provider import AuthProvider
from tornado.web import HTTPError, RequestHandler

from heapsmith.run.sockets import find_user_of_connection


def names_of_host(host: str) -> set[str]:
    """Every name under which a browser may ask for a page that is served on an address.

    Example:
        >>> sorted(names_of_host("127.0.0.1"))
        ['127.0.0.1', 'localhost']
    """
    loopback = {"localhost", "127.0.0.1"}
    if host.lower() == "localhost":
        return loopback | {"[::1]"}
    if _is_loopback(host):
        return {"localhost", _in_url(host)}
    if host not in ("0.0.0.0", "::", ""):
        return {_in_url(host)}
    addresses = {
        _in_url(address.address.split("%")[0])
        for interface in psutil.net_if_addrs().values()
        for address in interface
        if address.family in (socket.AF_INET, socket.AF_INET6)
    }
    return loopback | {"[::1]"} | addresses | {socket.gethostname().lower(), socket.getfqdn().lower()}


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host.lower()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Doorkeeper(AuthProvider):
    """Lets in requests that name a host of ours and do not come from another user of this machine.

    Args:
        hosts: Names a browser may use, without the port.
    """

    def __init__(self, hosts: set[str]) -> None:
        self._hosts = hosts
        super().__init__()

    @property
    def get_user_async(self) -> Callable[[Any], Awaitable[Any]]:
        """The function that Bokeh asks before it answers a request for the page or opens a connection."""
        return self._check

    @property
    def login_url(self) -> str:
        """Where Bokeh would send strangers; they are refused before."""
        return "/"

    async def _check(self, handler: RequestHandler) -> str:
        host = handler.request.host_name.lower()
        if _in_url(host.strip("[]")) not in self._hosts:
            raise HTTPError(403, "this page is not served under that name")
        origin = handler.request.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc.lower() != handler.request.host.lower():
            raise HTTPError(403, "another site asks for this page")
        connection: Any = handler.request.connection
        address = getattr(getattr(connection, "context", None), "address", None)
        user = find_user_of_connection(str(address[0]), int(address[1])) if address else None
        if user not in (None, 0, os.geteuid()):
            raise HTTPError(403, "this page belongs to another user of this machine")
        return "owner"
