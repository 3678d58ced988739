"""Ports that stay free until they are used: below those from which the system takes one for each connection."""

from __future__ import annotations

import os
import socket
from itertools import count

_FIRST, _COUNT = 20_000, 12_000  # ip_local_port_range(7) begins at 32768
_TURNS = count(os.getpid() * 997)  # processes that begin together are far apart


def free() -> int:
    """A port on which nobody listens, and that this process has given to nobody."""
    for turn in _TURNS:
        port = _FIRST + turn % _COUNT
        with socket.socket() as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                tried.bind(("0.0.0.0", port))
            except OSError:
                continue
        return port
    raise AssertionError("the turns end")
