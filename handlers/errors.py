"""What goes wrong, in words: the one place where an exception becomes a sentence for the person who asked."""

from __future__ import annotations

import logging
import re
import secrets
from typing import TYPE_CHECKING, TypeVar

from redis.exceptions import RedisError
from slack_bolt.error import BoltUnhandledRequestError
from slack_bolt.response import BoltResponse

from checks.diagnosis import UnknownHost
from checks.mesh import Unreadable
from templates import messages

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncRespond

    from templates.blocks import Message

logger = logging.getLogger(__name__)


class UnknownVerb(Exception):
    """A word that is no verb, and the nearest one that is."""

    def __init__(self, word: str, nearest: str | None) -> None:
        super().__init__(word)
        self.word = word
        self.nearest = nearest


class Unanswerable(Exception):
    """The question cannot be answered; the message is the sentence that says why."""


_Answer = TypeVar("_Answer")


async def answered(question: Awaitable[_Answer]) -> _Answer | Message:
    """The answer to a question, or what went wrong with it, in words."""
    try:
        return await question
    except UnknownVerb as unknown:
        return messages.unknown_verb(unknown.word, unknown.nearest)
    except UnknownHost as unknown:
        return messages.unknown_host(unknown.word, unknown.candidates, unknown.ambiguous)
    except (Unanswerable, Unreadable) as known:
        return messages.error(str(known))
    except RedisError:
        return messages.error("My store does not answer, so I can neither say nor do that now; try again.")
    except Exception:  # the one blind except around a handler: whoever asked gets a sentence, the log gets the rest
        reference = secrets.token_hex(4)
        logger.exception("A question could not be answered (reference %s).", reference)
        return messages.error(f"That question broke something in me. My log has the details under {reference}.")


def register(app: AsyncApp) -> None:
    """Answer buttons that nobody knows any more, and log what could not be answered without what was sent: it holds people's words."""

    @app.action(re.compile(""))
    async def outlived(ack: AsyncAck, respond: AsyncRespond) -> None:
        await ack()
        told = messages.error("This button is of another version of me and does nothing any more; ask again.")
        await respond(text=told.text, blocks=list(told.blocks), response_type="ephemeral", replace_original=False)

    @app.error
    async def failed(error: Exception) -> BoltResponse:
        if isinstance(error, BoltUnhandledRequestError):
            return BoltResponse(status=200, body="")
        logger.error("An answer could not be given: %s", type(error).__name__)
        return BoltResponse(status=200, body="")
