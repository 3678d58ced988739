"""How often an app may call each Web API method: Slack's tiers, as token buckets on an injected clock."""

import math
from collections.abc import Callable

T1, T2, T3, T4 = 1, 20, 50, 100  # calls a minute; Slack's own are "at least"

#: Method -> calls a minute, for each method and workspace (docs.slack.dev/apis/web-api/rate-limits).
TIERS = {
    "apps.connections.open": T1,
    **dict.fromkeys(
        (
            "usergroups.list",
            "usergroups.users.list",
            "conversations.list",
            "conversations.create",
            "conversations.setTopic",
            "users.list",
            "reactions.remove",
        ),
        T2,
    ),
    **dict.fromkeys(
        (
            "chat.update",
            "chat.delete",
            "conversations.info",
            "conversations.history",
            "conversations.replies",
            "conversations.open",
            "conversations.join",
            "conversations.invite",
            "reactions.add",
        ),
        T3,
    ),
    **dict.fromkeys(
        (
            "chat.postEphemeral",
            "views.open",
            "views.update",
            "views.push",
            "views.publish",
            "users.info",
            "conversations.members",
            "files.getUploadURLExternal",
            "files.completeUploadExternal",
            "files.info",
        ),
        T4,
    ),
    "chat.postMessage": 300,  # several hundred a minute in one workspace, beside one a second in each channel
    "chat.getPermalink": 300,
    "auth.test": 300,
}
CHANNEL_BURST = 5  # posts to one channel before "one a second" is meant literally
_BURST = {"apps.connections.open": 10}  # an app may open its ten connections at once


class Rates:
    """The buckets of one workspace."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._buckets: dict[tuple[str, ...], tuple[float, float]] = {}  # key -> tokens, when they were counted

    def take(self, method: str, channel: str | None = None) -> int:
        """Spends one call; zero, or the seconds of Retry-After when there is none left to spend."""
        wanted: list[tuple[tuple[str, ...], int, float]] = [
            ((method,), _BURST.get(method, TIERS.get(method, T3)), TIERS.get(method, T3) / 60)
        ]
        if method == "chat.postMessage" and channel:
            wanted.append(((method, channel), CHANNEL_BURST, 1.0))
        now = self._clock()
        left: dict[tuple[str, ...], float] = {}
        for key, most, rate in wanted:
            tokens, since = self._buckets.get(key, (float(most), now))
            left[key] = min(float(most), tokens + max(0.0, now - since) * rate)
            if left[key] < 1:
                return max(1, math.ceil((1 - left[key]) / rate - 1e-9))
        for key, tokens in left.items():
            self._buckets[key] = (tokens - 1, now)
        return 0
