"""What every probe of a pod has in common: a fixed list of whole requests, sent by GET, and the bounds within which they are answered.

What must stay true: nothing but a member of a probe's own list of requests is ever sent, since some requests of Envoy and istiod act although
they are GETs. No redirect is followed, nothing is unpacked, and all requests to one pod share one deadline.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import aiohttp
import msgspec
from yarl import URL

if TYPE_CHECKING:
    from collections.abc import Callable
    from enum import StrEnum

TIMEOUT_S = 4.0
"""For all requests to one pod together, the way there as well: an Envoy of 5,000 clusters takes some 2 s."""

MAX_BYTES = 64 << 20
"""Of one answer or one saved file: an Envoy of 5,000 clusters says some 20 MB."""

_T = TypeVar("_T")


class NotRead(Exception):
    """Why something could not be read: what comes after the colon of a sentence that says so."""


class Unreached(NotRead):
    """There is nobody there, or no time left: nothing else that is asked will be answered."""


class NoWay(aiohttp.ClientConnectionError):
    """There is no way to a pod through the API server, or it broke off; the message is the reason."""


def session(connector: aiohttp.BaseConnector | None = None) -> aiohttp.ClientSession:
    """How probes ask: nothing is unpacked (a bound on bytes must be one on what is decoded), nothing is kept, the deadline is the Admin's own."""
    return aiohttp.ClientSession(
        connector=connector,
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"Accept-Encoding": "identity"},
        timeout=aiohttp.ClientTimeout(total=None),
    )


@dataclass(frozen=True, slots=True)
class Admin:
    """One HTTP server in a pod, at `base` (scheme, host and port), which sentences call `name`.

    `requests` is the list of all that may be sent to it. `deadline` is on the monotonic clock, `timeout_s` what it was made of.
    """

    session: aiohttp.ClientSession
    requests: type[StrEnum]
    base: str
    name: str
    deadline: float
    timeout_s: float = TIMEOUT_S
    max_bytes: int = MAX_BYTES

    async def get(self, request: StrEnum) -> bytearray:
        """The body of a 200. Raises NotRead; ValueError, and sends nothing, for anything but a whole request of the list."""
        body = bytearray()
        await self.stream(request, body.extend, self.max_bytes)
        return body

    async def stream(self, request: StrEnum, take: Callable[[bytes], None], max_bytes: int) -> None:
        """As get, handing each piece over as it comes: for an answer that is too long to be held."""
        url = URL(f"{self.base}{self.requests(request)}", encoded=True)
        if url.raw_path_qs != request:
            raise ValueError(f"{self.base!r} is more than scheme, host and port")
        length = 0
        try:
            async with (
                asyncio.timeout(max(0.0, self.deadline - time.monotonic())),
                self.session.get(url, allow_redirects=False) as response,
            ):
                if response.status != 200:
                    raise NotRead(f"{self.name} answers {response.status} to GET {request} and not 200")
                async for chunk in response.content.iter_any():
                    length += len(chunk)
                    if length > max_bytes:
                        raise NotRead(f"its answer to GET {request} is longer than {max_bytes >> 20} MB")
                    take(chunk)
        except TimeoutError:
            raise Unreached(f"{self.name} did not answer GET {request} within {self.timeout_s:g} s") from None
        except NoWay as e:
            raise Unreached(str(e)) from None
        except aiohttp.ClientConnectorError as e:
            raise Unreached(f"no connection to {self.name} ({os.strerror(e.os_error.errno) if e.os_error.errno else e.os_error})") from None
        except aiohttp.ClientError as e:
            raise NotRead(f"the answer of {self.name} to GET {request} broke off ({type(e).__name__})") from None


def decoded(decoder: msgspec.json.Decoder[_T], body: bytes | bytearray, what: str, who: str) -> _T:
    """Raises NotRead for half a JSON, no JSON, or one that `who` would not have written."""
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise NotRead(f"{what} is not what {who} answers ({e})") from None
