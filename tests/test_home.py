"""The App Home, through the real Bolt against the local workspace."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from bot.clusters import ClusterSource
from bot.demo import limits
from bot.settings import Access
from bot.tell import ACK, UNACK
from handlers.home import Home
from templates import home
from tests.bots import RECORDED, running

if TYPE_CHECKING:
    from bot.demo.slack import LocalSlack, View

EAST = ClusterSource("east", mesh="east", path=str(RECORDED / "east"))
WEST = ClusterSource("west", mesh="west", path=str(RECORDED / "west"))


def words(view: View | None) -> str:
    return "\n".join(limits.words(view.payload["blocks"])) if view is not None else ""


async def shows(slack: LocalSlack, said: str, user: str = "ana") -> str:
    await slack.until(lambda: said in words(slack.home(user)), 10)
    return words(slack.home(user))


async def test_a_home_says_what_is_broken_and_owned_and_silent_and_leads_to_each_thread(slack: LocalSlack, redis_url: str):
    async with running(slack, redis_url, [EAST, WEST]) as bot:
        roots = await slack.until(lambda: len(m := slack.messages("#mesh")) == 2 and all(x.blocks for x in m) and m, 15)
        (root,) = (m for m in roots if "destination.mynamespace" in m.words)
        await slack.open_home()
        shown = await shows(slack, "Broken now: 2 alerts")
        assert "You see to nothing now" in shown
        assert "2 of 2 clusters read completely" in shown
        assert "Nothing is silenced" in shown
        address = f"<{slack.workspace.base}/archives/{root.channel}/p{root.ts.replace('.', '')}|thread>"
        assert f"{address}" in next(line for line in shown.split("\n") if "destination.mynamespace" in line)
        await slack.click(root, ACK)
        shown = await shows(slack, "You see to\n")
        assert "Broken now: 2 alerts, 1 of them yours" in shown
        await slack.command("/mesh silence destination.mynamespace 1h we move it")
        line = next(x for x in (await shows(slack, "we move it")).split("\n") if "we move it" in x)
        assert line.endswith(f"· {address}"), "a silence leads to what it keeps quiet"
        await slack.until(lambda: any(e.get("action_id") == UNACK for b in root.blocks for e in b.get("elements", ())), 10)
        await slack.click(root, UNACK)
        await shows(slack, "You see to nothing now")
        assert slack.home("ben") is None, "nobody is shown a Home who did not open one"
        view = slack.home("ana")
        assert view is not None
        before = view.hash
        await slack.click(view, home.REFRESH)
        await slack.until(lambda: (v := slack.home("ana")) is not None and v.hash != before)
        slack.fault("views.publish", error="not_enabled")
        await Home(bot.door).publish("U0ANA", {"type": "home", "blocks": []})


async def test_a_home_holds_nothing_that_its_person_may_not_see(slack: LocalSlack, redis_url: str):
    access = {"viewers": [{"who": "U0KIM", "cluster": "west"}], "admins": ["U0ANA"]}
    async with running(slack, redis_url, [EAST, WEST], access=access) as bot:
        await slack.until(lambda: len(m := slack.messages("#mesh")) == 2 and all(x.blocks for x in m), 15)
        await slack.command("/mesh silence destination.mynamespace 1h we move it")
        await slack.open_home("kim")
        shown = await shows(slack, "Broken now: 1 alert", "kim")
        assert "destination" not in shown
        assert "`east`" not in shown
        assert "1 of 1 cluster read completely" in shown
        assert "1 alert left out: you may not look there." in shown
        bot.door.heed(Access.model_validate({"viewers": [], "admins": ["U0ANA"]}), ())
        await slack.open_home("kim")
        assert await shows(slack, "is for <@U0ANA>", "kim") == "Looking at the Home is for <@U0ANA>."


HOSTILE = "<!channel> `x` & | " + "very-long-name." * 40


@pytest.mark.parametrize("count", [0, 1, 300])
def test_however_much_there_is_slack_takes_the_view(count: int):
    row: dict[str, Any] = {
        "share": 0.95,
        "hosts": [HOSTILE] * 5,
        "cause": HOSTILE,
        "since": 1.0,
        "unknown": None,
        "flapping": True,
        "silenced": True,
    }
    row |= {"closed": "", "ack": {"by": "U0ANA", "until": 9.0}, "link": "https://local.slack.com/archives/C1/p1"}
    silence = {"id": "s", "match": {"host": HOSTILE}, "by": "U0ANA", "until": 9.0, "why": HOSTILE, "link": ""}
    cluster = {"name": HOSTILE, "mesh": HOSTILE, "synced": False, "age_s": 9.0, "unreadable": dict.fromkeys(map(str, range(40)), HOSTILE)}
    told = {"at": 1.0, "own": [row] * count, "broken": [{**row, "closed": "U0BEN"}, *([row] * count)], "silences": [silence] * count}
    view = home.home({**told, "clusters": [cluster] * count, "left_out": count})
    assert limits.wrong_view(view, lambda _: True) == []
    assert len(view["blocks"]) <= limits.BLOCKS["home"]
    assert len(json.dumps(view).encode()) < limits.VIEW_BYTES
    assert "<!channel>" not in json.dumps(view)
    assert view["blocks"][-1]["type"] == "actions", "what is cut is counted, never what stands below"
