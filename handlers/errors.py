"""What goes wrong, in words: the one place where an exception becomes a sentence for the person who asked."""

from __future__ import annotations

import logging
import re
import secrets
from typing import TYPE_CHECKING, NamedTuple

from redis.exceptions import RedisError
from slack_bolt.error import BoltUnhandledRequestError
from slack_bolt.response import BoltResponse

from checks.diagnosis import UnknownHost
from checks.mesh import Unreadable
from templates import messages

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping, Sequence

    from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncRespond

    from bot.audit import Result
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


class Already(Exception):
    """Somebody else did it before: who (a Slack user's id), what (as `messages.already` knows it), and until when, if it ends."""

    def __init__(self, did: str, by: str, until: float | None = None) -> None:
        super().__init__(did)
        self.did = did
        self.by = by
        self.until = until


class Denied(Exception):
    """Somebody may not do a thing: what, about what, who may (ids, or names where Slack does not say), and of whom Slack does not say who they are."""

    def __init__(self, verb: str, names: Sequence[str], may: Sequence[str], unread: Mapping[str, str]) -> None:
        super().__init__(verb)
        self.verb = verb
        self.names = names
        self.may = may
        self.unread = unread


class Stranger(Exception):
    """Somebody comes from workspaces (their ids) that are not answered."""

    def __init__(self, teams: Sequence[str]) -> None:
        super().__init__(", ".join(teams))
        self.teams = teams


class Told(NamedTuple):
    """What somebody is told; None: a dialog was opened. `why` is for the audit, without what was typed."""

    message: Message | None
    result: Result = "done"
    why: str = ""
    alone: bool = False
    """Whether nobody else is to read it."""
    live: str = ""
    """The host that it tells of, of which running parts may tell more."""


async def answered(question: Awaitable[Message | None]) -> Told:
    """The answer to a question, or what went wrong with it, in words."""
    try:
        message = await question
        return Told(message, why="" if message is not None else "a dialog was opened")
    except Denied as denied:
        why = ", ".join(f"{who}: {reason}" for who, reason in denied.unread.items())
        return Told(messages.denied(denied.verb, denied.names, denied.may, denied.unread), "denied", why, alone=True)
    except Stranger as stranger:
        return Told(messages.stranger(), "stranger", ", ".join(stranger.teams) or "of no workspace", alone=True)
    except Already as already:
        return Told(messages.already(already.did, already.by, already.until), "already", f"by {already.by}")
    except UnknownVerb as unknown:
        return Told(messages.unknown_verb(unknown.word, unknown.nearest), "unanswered", "no such verb")
    except UnknownHost as unknown:
        return Told(messages.unknown_host(unknown.word, unknown.candidates, unknown.ambiguous), "unanswered", "no such host")
    except (Unanswerable, Unreadable) as known:
        return Told(messages.error(str(known)), "unanswered")
    except RedisError:
        told = messages.error("My store does not answer, so I can neither say nor do that now; try again.")
        return Told(told, "failed", "the store does not answer")
    except Exception:  # the one blind except around a handler: whoever asked gets a sentence, the log gets the rest
        reference = secrets.token_hex(4)
        logger.exception("A question could not be answered (reference %s).", reference)
        told = messages.error(f"That question broke something in me. My log has the details under {reference}.")
        return Told(told, "failed", f"reference {reference}")


def register(app: AsyncApp) -> None:
    """Answer buttons that nobody knows any more, and log what could not be answered without what was sent: it holds people's words."""

    @app.action(re.compile(""))
    async def outlived(ack: AsyncAck, respond: AsyncRespond) -> None:
        await ack()
        told = messages.error("This button is of another version of me and does nothing any more; ask again.")
        await respond(text=told.text, blocks=list(told.blocks), response_type="ephemeral", replace_original=False)

    @app.error
    async def failed(error: Exception, response: BoltResponse | None) -> BoltResponse | None:
        if isinstance(error, BoltUnhandledRequestError):
            return BoltResponse(status=200, body="")
        logger.error("An answer could not be given: %s", type(error).__name__)
        # What was acknowledged before, as every event is, has no answer any more that could be replaced.
        return None if response is None else BoltResponse(status=200, body="")
