"""Where the API server has what belongs to one pod, and the end of its log.

What must stay true: a name that no pod can have leads nowhere; a log is read to a bound of lines, bytes and age, and never followed.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import aiohttp

from bot.informers import NoAccess, Refused, why
from bot.probes.admin import NotRead

if TYPE_CHECKING:
    from bot.informers import Server

LOG_LINES = 2000
LOG_BYTES = 2 << 20
LOG_AGE_S = 1800

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")
"""A DNS subdomain, as Kubernetes names pods and namespaces: nothing of it means anything in a path."""


def path(namespace: str, pod: str, of: str) -> str:
    """Where something of a pod (`log`, `portforward`) is; raises NotRead for names that no pod can have."""
    if not (_NAME.fullmatch(namespace) and _NAME.fullmatch(pod)) or ".." in namespace + pod:
        raise NotRead(f"{namespace!r}/{pod!r} is no pod")
    return f"/api/v1/namespaces/{namespace}/pods/{pod}/{of}"


async def log(
    server: Server,
    namespace: str,
    pod: str,
    container: str,
    *,
    patience_s: float,
    lines: int = LOG_LINES,
    age_s: int = LOG_AGE_S,
    stamped: bool = False,
) -> str:
    """The last lines of a container's log, of at most LOG_BYTES; `stamped`: each after the time at which it was written. Raises NotRead."""
    query = {"container": container, "tailLines": str(lines), "sinceSeconds": str(age_s), "limitBytes": str(LOG_BYTES)}
    query |= {"timestamps": "true"} if stamped else {}
    said = bytearray()
    try:
        async with (
            asyncio.timeout(patience_s),
            server.get(path(namespace, pod, "log"), query, accept="*/*", patience_s=patience_s) as (response, _),
        ):
            async for chunk in response.content.iter_any():
                said += chunk
                if len(said) >= LOG_BYTES:
                    break
    except Refused as e:
        raise NotRead(refused(e, namespace, pod, "read logs", "logs")) from None
    except TimeoutError:
        raise NotRead(f"its log did not come within {patience_s:g} s") from None
    except (NoAccess, aiohttp.ClientError, OSError) as e:
        raise NotRead(f"the API server: {why(e)}") from None
    return said[:LOG_BYTES].decode(errors="replace")


def refused(e: Refused, namespace: str, pod: str, to: str, granted_by: str) -> str:
    """Why the API server, or the kubelet behind it, does not do something with a pod."""
    return {
        400: f"pod {namespace}/{pod} is not running yet, or does not run any more (HTTP 400)",
        401: "the API server does not know us (HTTP 401)",
        403: f"no permission to {to} in namespace {namespace}: `{granted_by}: true` in the chart grants it",
        404: f"there is no pod {namespace}/{pod} any more (HTTP 404)",
        429: "the API server has too much to do (HTTP 429)",
        200: "the API server, or a proxy before it, knows no WebSockets",
    }.get(e.status, f"the API server cannot reach pod {namespace}/{pod} (HTTP {e.status})")
