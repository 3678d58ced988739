"""Alerts: the table of `step`, and what must hold for every sequence of events."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec.structs import replace

from bot.alerts import (
    FLAP_S,
    QUIET,
    REOPEN_S,
    Ack,
    Acked,
    Alert,
    Close,
    Closed,
    Escalated,
    Event,
    Gone,
    Handed,
    Hushed,
    Lapsed,
    Note,
    Noted,
    Reason,
    Receiver,
    Reopened,
    Seen,
    Sent,
    Silence,
    State,
    Unacked,
    Unseen,
    due,
    identity,
    rule_of,
    step,
)
from checks.finding import Severity
from checks.resources import objects, parse
from checks.routes import Viewpoint
from tests.bots import FINDING

BROKEN = replace(
    FINDING, viewpoints=(Viewpoint("east", "sidecar", "mynamespace"),), message="Subset v1 has 95 % of the weight and no endpoint."
)
LESS = replace(BROKEN, failing_share=0.6)
ANA, BEN = "U0ANA", "U0BEN"


def walk(*events: tuple[float, Event], for_s: float = 0, clear_s: float = 0) -> tuple[Alert | None, list[Reason]]:
    alert: Alert | None = None
    reasons = []
    for now, event in events:
        alert, reason = step(alert, event, now, for_s=for_s, clear_s=clear_s)
        reasons.append(reason)
    return alert, reasons


@pytest.mark.parametrize(
    ("events", "for_s", "clear_s", "reasons", "state"),
    [
        pytest.param([(0, Seen(BROKEN))], 0, 0, [Reason.FIRED], State.FIRING, id="fires at once without for"),
        pytest.param(
            [(0, Seen(BROKEN)), (9, Seen(BROKEN)), (10, Seen(BROKEN))],
            10,
            0,
            [Reason.PENDING, Reason.PENDING, Reason.FIRED],
            State.FIRING,
            id="waits for `for`",
        ),
        pytest.param([(0, Seen(BROKEN)), (5, Gone())], 10, 0, [Reason.PENDING, Reason.PASSED], None, id="a blip is forgotten"),
        pytest.param([(0, Seen(BROKEN)), (1, Gone())], 0, 0, [Reason.FIRED, Reason.RESOLVED], State.RESOLVED, id="resolves at once"),
        pytest.param(
            [(0, Seen(BROKEN)), (1, Gone()), (30, Gone()), (31, Gone())],
            0,
            30,
            [Reason.FIRED, Reason.CLEARING, Reason.NONE, Reason.RESOLVED],
            State.RESOLVED,
            id="waits for `clear`",
        ),
        pytest.param(
            [(0, Seen(BROKEN)), (1, Gone()), (2, Seen(BROKEN)), (31, Gone())],
            0,
            30,
            [Reason.FIRED, Reason.CLEARING, Reason.RELAPSED, Reason.CLEARING],
            State.FIRING,
            id="clearing starts again after a relapse",
        ),
        pytest.param(
            [(0, Seen(BROKEN)), (1, Seen(LESS)), (2, Seen(LESS))],
            0,
            0,
            [Reason.FIRED, Reason.SHARE_CHANGED, Reason.NONE],
            State.FIRING,
            id="a new share is told once",
        ),
        pytest.param(
            [(0, Seen(BROKEN)), (1, Seen(replace(BROKEN, message="Subset v1 has no endpoint.")))],
            0,
            0,
            [Reason.FIRED, Reason.REWORDED],
            State.FIRING,
            id="other words",
        ),
        pytest.param(
            [(0, Seen(BROKEN)), (1, Seen(replace(BROKEN, evidence=("read 0.4 s ago",))))],
            0,
            0,
            [Reason.FIRED, Reason.NONE],
            State.FIRING,
            id="evidence alone is no news",
        ),
        pytest.param(
            [(0, Seen(BROKEN)), (1, Unseen("403")), (2, Unseen("403")), (900, Seen(BROKEN))],
            0,
            0,
            [Reason.FIRED, Reason.UNKNOWN, Reason.NONE, Reason.KNOWN_AGAIN],
            State.FIRING,
            id="unknown freezes and ends",
        ),
        pytest.param(
            [(0, Seen(BROKEN)), (1, Gone()), (2, Unseen("403")), (500, Gone()), (529, Gone()), (530, Gone())],
            0,
            30,
            [Reason.FIRED, Reason.CLEARING, Reason.UNKNOWN, Reason.KNOWN_AGAIN, Reason.NONE, Reason.RESOLVED],
            State.RESOLVED,
            id="time that was not looked at does not clear",
        ),
        pytest.param(
            [(0, Seen(BROKEN)), (3, Unseen("down")), (20, Seen(BROKEN))],
            10,
            0,
            [Reason.PENDING, Reason.NONE, Reason.FIRED],
            State.FIRING,
            id="a pending one is not told as unknown and fires when it is seen again",
        ),
        pytest.param(
            [(0, Seen(BROKEN)), (1, Gone()), (60, Seen(BROKEN))],
            0,
            0,
            [Reason.FIRED, Reason.RESOLVED, Reason.FIRED_AGAIN],
            State.FIRING,
            id="back soon: the same message",
        ),
        pytest.param(
            [(0, Seen(BROKEN)), (1, Gone()), (60, Seen(BROKEN)), (61, Gone())],
            5,
            0,
            [Reason.PENDING, Reason.PASSED, Reason.PENDING, Reason.PASSED],
            None,
            id="two blips",
        ),
        pytest.param([(0, Gone()), (1, Unseen("403"))], 0, 0, [Reason.NONE, Reason.NONE], None, id="nothing comes of nothing"),
    ],
)
def test_step_is_this_table(events: list[tuple[float, Event]], for_s: float, clear_s: float, reasons: list[Reason], state: State | None):
    alert, got = walk(*events, for_s=for_s, clear_s=clear_s)
    assert got == reasons
    assert (alert.state if alert else None) == state


def test_an_alert_that_comes_back_long_after_it_was_resolved_gets_a_new_message():
    alert, reasons = walk((0, Seen(BROKEN)), (1, Gone()), (2 + REOPEN_S, Seen(BROKEN)))
    assert alert is not None
    assert reasons[-1] is Reason.FIRED
    assert alert.message.endswith("-2")
    assert alert.firings == 1


def test_a_blip_after_a_resolve_leaves_the_alert_resolved_as_it_was():
    alert, reasons = walk((0, Seen(BROKEN)), (100, Gone()), (130, Gone()), (140, Seen(BROKEN)), (141, Gone()), for_s=0, clear_s=30)
    assert reasons[-2:] == [Reason.FIRED_AGAIN, Reason.CLEARING]
    alert, _ = walk((0, Seen(BROKEN)), (10, Seen(BROKEN)), (20, Gone()), (30, Seen(BROKEN)), (31, Gone()), for_s=5)
    assert alert is not None
    assert (alert.state, alert.resolved_at, alert.firings) == (State.RESOLVED, 20, 1)


def test_what_made_it_well_is_what_changed_when_it_was_first_seen_gone():
    alert, _ = walk((0, Seen(BROKEN)), (1, Gone(("Deployment mynamespace/v1",))), (40, Gone(("Pod other/x",))), clear_s=30)
    assert alert is not None
    assert alert.well_by == ("Deployment mynamespace/v1",)


def close(at: float, by: str = ANA) -> Closed:
    return Closed(Close(by=by, at=at, why="rolled back"))


NOTE = Noted(Note(by=ANA, at=1, text="rolling back"))
WORSE = replace(BROKEN, failing_share=0.75)


@pytest.mark.parametrize(
    ("events", "reasons", "state"),
    [
        pytest.param(
            [(0, Seen(BROKEN)), (1, Acked(Ack(by=ANA, at=1))), (2, Handed(Ack(by=BEN, at=2), ANA)), (3, Handed(Ack(by=BEN, at=2), ANA))],
            [Reason.FIRED, Reason.ACKED, Reason.HANDED, Reason.NONE],
            State.FIRING,
            id="handed over, once",
        ),
        pytest.param(
            [(0, Seen(BROKEN)), (1, NOTE), (1, NOTE), (2, Gone()), (3, NOTE)],
            [Reason.FIRED, Reason.NOTED, Reason.NONE, Reason.RESOLVED, Reason.NONE],
            State.RESOLVED,
            id="a note that is heard twice is one, and what is over takes none",
        ),
        pytest.param(
            [(0, Seen(BROKEN)), (1, close(1)), (2, close(2, BEN)), (3, Seen(BROKEN)), (1000, Seen(BROKEN)), (1001, Seen(LESS))],
            [Reason.FIRED, Reason.CLOSED, Reason.NONE, Reason.NONE, Reason.NONE, Reason.REWORDED],
            State.CLOSED,
            id="what is called done stays so while it is seen",
        ),
        pytest.param(
            [(0, Seen(BROKEN)), (1, close(1)), (2, Gone()), (3, Seen(BROKEN))],
            [Reason.FIRED, Reason.CLOSED, Reason.RESOLVED, Reason.FIRED_AGAIN],
            State.FIRING,
            id="seen newly, it fires again",
        ),
        pytest.param(
            [(0, Seen(LESS)), (1, close(1)), (2, Seen(replace(LESS, failing_share=0.69))), (3, Seen(WORSE)), (4, Seen(WORSE))],
            [Reason.FIRED, Reason.CLOSED, Reason.REWORDED, Reason.WORSE, Reason.NONE],
            State.FIRING,
            id="it is told again when it gets worse",
        ),
        pytest.param(
            [(0, Seen(BROKEN)), (1, Acked(Ack(by=BEN, at=1))), (2, close(2)), (3, Reopened(ANA)), (4, Acked(Ack(by=ANA, at=4))), (5, Reopened(BEN))],
            [Reason.FIRED, Reason.ACKED, Reason.CLOSED, Reason.REOPENED, Reason.ACKED, Reason.NONE],
            State.FIRING,
            id="reopened it has nobody yet",
        ),
        pytest.param(
            [(0, Seen(BROKEN)), (1, close(1)), (2, Unseen("403")), (3, Gone()), (4, close(4)), (5, Reopened(ANA))],
            [Reason.FIRED, Reason.CLOSED, Reason.UNKNOWN, Reason.RESOLVED, Reason.NONE, Reason.NONE],
            State.RESOLVED,
            id="only a look resolves what was called done",
        ),
        pytest.param(
            [(0, Seen(BROKEN)), (1, Acked(Ack(by=ANA, at=1, until=9))), (2, close(2)), (10, Lapsed()), (11, Acked(Ack(by=BEN, at=11)))],
            [Reason.FIRED, Reason.ACKED, Reason.CLOSED, Reason.NONE, Reason.NONE],
            State.CLOSED,
            id="nobody is asked about what is called done",
        ),
    ],
)  # fmt: skip
def test_what_people_own_hand_over_and_call_done(events: list[tuple[float, Event]], reasons: list[Reason], state: State):
    alert, found = walk(*events)
    assert found == reasons
    assert alert is not None
    assert alert.state is state
    assert msgspec.json.decode(msgspec.json.encode(alert), type=Alert) == alert


def test_what_is_called_done_wakes_nobody_and_its_escalation_begins_anew_when_it_is_reopened():
    alert, _ = walk((0, Seen(BROKEN)), (1, close(1)))
    assert alert is not None
    assert due(alert, for_s=0, clear_s=0, escalation=[5]) is None
    assert step(alert, Lapsed(), 9, for_s=0, clear_s=0, escalation=[5])[1] is Reason.NONE
    again, _ = step(alert, Reopened(ANA), 10, for_s=0, clear_s=0)
    assert again is not None
    assert due(again, for_s=0, clear_s=0, escalation=[5]) == 15
    clearing, _ = step(alert, Gone(), 20, for_s=0, clear_s=30)
    assert clearing is not None
    assert due(clearing, for_s=0, clear_s=30) == 50


def test_due_says_when_an_alert_moves_on_by_itself():
    pending, _ = step(None, Seen(BROKEN), 100, for_s=10, clear_s=30)
    assert pending is not None
    assert due(pending, for_s=10, clear_s=30) == 110
    firing, _ = step(pending, Seen(BROKEN), 110, for_s=10, clear_s=30)
    assert firing is not None
    assert due(firing, for_s=10, clear_s=30) is None
    clearing, _ = step(firing, Gone(), 120, for_s=10, clear_s=30)
    assert clearing is not None
    assert due(clearing, for_s=10, clear_s=30) == 150
    frozen, _ = step(clearing, Unseen("down"), 121, for_s=10, clear_s=30)
    assert frozen is not None
    assert due(frozen, for_s=10, clear_s=30) is None


def rules(*written: dict[str, object]) -> list[str]:
    manifest = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "destination", "namespace": "mynamespace"},
        "spec": {"hosts": ["destination"], "http": list(written)},
    }
    (resource,) = objects(parse(manifest))
    return [rule_of(resource, f"spec.http[{i}].route[0]") for i in range(len(written))]


def test_a_rule_is_known_by_its_name_or_match_and_never_by_its_place():
    named: dict[str, object] = {"name": "canary", "route": []}
    admin: dict[str, object] = {"match": [{"uri": {"prefix": "/admin"}}], "route": []}
    rest: dict[str, object] = {"route": [{"destination": {"host": "destination"}, "weight": 95}]}
    first = rules(named, admin, rest)
    assert first[0] == "canary"
    assert len(set(first)) == 3
    assert rules(rest, admin, named) == first[::-1]
    assert rules({"route": [{"destination": {"host": "destination"}, "weight": 60}]}) == first[2:]


def test_a_path_outside_of_rules_or_of_an_object_that_is_gone_has_no_rule():
    assert rule_of(None, "spec.http[0]") == ""
    (service,) = objects(parse({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "namespace": "b"}}))
    assert rule_of(service, "spec.selector") == ""
    assert rule_of(service, "spec.http[7]") == ""


def test_identity_survives_new_words_and_shares_and_tells_everything_else_apart():
    own = identity(BROKEN, "r")
    assert identity(replace(LESS, message="other", path="spec.http[4]", evidence=("x",), severity=Severity.WARNING), "r") == own
    others = [
        identity(replace(BROKEN, cluster="west"), "r"),
        identity(replace(BROKEN, cause="subset-undefined"), "r"),
        identity(replace(BROKEN, resource="VirtualService other/destination"), "r"),
        identity(replace(BROKEN, host="a.b.svc.cluster.local"), "r"),
        identity(BROKEN, "q"),
    ]
    assert len({own, *others}) == 6


def test_an_alert_survives_json():
    alert, _ = walk((0, Seen(BROKEN)), (1, Unseen("403")))
    assert msgspec.json.decode(msgspec.json.encode(alert), type=Alert) == alert


ALL_EAST = Silence(id="s1", match={"cluster": "east"}, by=ANA, at=0, until=10_000, why="maintenance")


@pytest.mark.parametrize(
    ("events", "clear_s", "reasons"),
    [
        pytest.param(
            [
                (0, Seen(BROKEN)),
                (1, Acked(Ack(by=ANA, at=1))),
                (2, Acked(Ack(by=BEN, at=2))),
                (3, Unacked(ANA)),
                (4, Acked(Ack(by=BEN, at=4))),
            ],
            0,
            [Reason.FIRED, Reason.ACKED, Reason.NONE, Reason.UNACKED, Reason.ACKED],
            id="the first one has it until they give it back",
        ),
        pytest.param(
            [(0, Seen(BROKEN)), (1, Gone()), (2, Acked(Ack(by=ANA, at=2))), (3, Seen(BROKEN)), (4, Acked(Ack(by=BEN, at=4)))],
            0,
            [Reason.FIRED, Reason.RESOLVED, Reason.NONE, Reason.FIRED_AGAIN, Reason.ACKED],
            id="a resolve in between wins",
        ),
        pytest.param(
            [(0, Seen(BROKEN)), (1, Acked(Ack(by=ANA, at=1, until=60))), (59, Lapsed()), (60, Lapsed()), (61, Lapsed())],
            0,
            [Reason.FIRED, Reason.ACKED, Reason.NONE, Reason.ACK_LAPSED, Reason.NONE],
            id="an ack for some time ends",
        ),
        pytest.param(
            [(0, Seen(BROKEN)), (1, Acked(Ack(by=ANA, at=1))), (2, Gone()), (3, Seen(BROKEN)), (4, Unacked(ANA))],
            0,
            [Reason.FIRED, Reason.ACKED, Reason.RESOLVED, Reason.FIRED_AGAIN, Reason.NONE],
            id="a new firing has nobody yet",
        ),
        pytest.param(
            [(0, Seen(BROKEN)), (1, Hushed(ALL_EAST)), (2, Hushed(ALL_EAST)), (3, Seen(LESS)), (4, Hushed(None)), (5, Hushed(None))],
            0,
            [Reason.FIRED, Reason.SILENCED, Reason.NONE, Reason.SHARE_CHANGED, Reason.UNSILENCED, Reason.NONE],
            id="a silence over what was told",
        ),
        pytest.param(
            [(0, Seen(BROKEN)), (0, Gone()), (1, Seen(BROKEN)), (1, Gone()), (2, Seen(BROKEN)), (700, Seen(BROKEN)), (701, Seen(BROKEN))],
            0,
            [Reason.FIRED, Reason.RESOLVED, Reason.FIRED_AGAIN, Reason.RESOLVED, Reason.FLAPPING, Reason.STEADY, Reason.NONE],
            id="flapping, then steadily broken",
        ),
        pytest.param(
            [
                (0, Seen(BROKEN)),
                (60, Gone()),
                (120, Seen(BROKEN)),
                (180, Gone()),
                (240, Seen(BROKEN)),
                (300, Gone()),
                (360, Seen(BROKEN)),
                (420, Gone()),
                (1019, Gone()),
                (1020, Gone()),
            ],
            0,
            [
                Reason.FIRED,
                Reason.RESOLVED,
                Reason.FIRED_AGAIN,
                Reason.RESOLVED,
                Reason.FLAPPING,
                Reason.CLEARING,
                Reason.FLAPPED,
                Reason.CLEARING,
                Reason.NONE,
                Reason.RESOLVED,
            ],
            id="flapping, then well for as long as it was watched for",
        ),
    ],
)
def test_what_people_do_and_what_flaps_is_this_table(events: list[tuple[float, Event]], clear_s: float, reasons: list[Reason]):
    _, got = walk(*events, clear_s=clear_s)
    assert got == reasons


STEPS = (300.0, 900.0)


def escalate(*events: tuple[float, Event]) -> tuple[Alert | None, list[Reason]]:
    alert: Alert | None = None
    reasons = []
    for now, event in events:
        alert, reason = step(alert, event, now, for_s=0, clear_s=30, escalation=STEPS)
        reasons.append(reason)
    return alert, reasons


@pytest.mark.parametrize(
    ("events", "reasons"),
    [
        pytest.param(
            [(0, Seen(BROKEN)), (299, Lapsed()), (300, Lapsed()), (301, Lapsed()), (900, Lapsed()), (9999, Lapsed())],
            [Reason.FIRED, Reason.NONE, Reason.ESCALATED, Reason.NONE, Reason.ESCALATED, Reason.NONE],
            id="each step once, and then it ends",
        ),
        pytest.param(
            [(0, Seen(BROKEN)), (100, Acked(Ack(by=ANA, at=100, until=400))), (300, Lapsed()), (400, Lapsed()), (401, Lapsed())],
            [Reason.FIRED, Reason.ACKED, Reason.NONE, Reason.ACK_LAPSED, Reason.ESCALATED],
            id="who sees to it holds it, as long as they do",
        ),
        pytest.param(
            [(0, Seen(BROKEN)), (290, Gone()), (300, Lapsed()), (320, Gone()), (330, Lapsed())],
            [Reason.FIRED, Reason.CLEARING, Reason.NONE, Reason.RESOLVED, Reason.NONE],
            id="what is well is not escalated",
        ),
        pytest.param(
            [(0, Seen(BROKEN)), (10, Unseen("down")), (300, Lapsed())],
            [Reason.FIRED, Reason.UNKNOWN, Reason.ESCALATED],
            id="what cannot be looked at is not well",
        ),
        pytest.param(
            [(0, Seen(BROKEN)), (10, Hushed(ALL_EAST)), (300, Lapsed()), (500, Hushed(None)), (501, Lapsed())],
            [Reason.FIRED, Reason.SILENCED, Reason.NONE, Reason.UNSILENCED, Reason.ESCALATED],
            id="a silence holds it",
        ),
        pytest.param(
            [(0, Seen(BROKEN)), (10, Escalated(ANA)), (11, Escalated(ANA)), (12, Escalated(ANA)), (900, Lapsed())],
            [Reason.FIRED, Reason.ESCALATED, Reason.ESCALATED, Reason.NONE, Reason.NONE],
            id="a person may ask for the next step at once",
        ),
        pytest.param(
            [(0, Seen(BROKEN)), (300, Lapsed()), (310, Gone()), (340, Gone()), (400, Seen(BROKEN)), (600, Lapsed()), (700, Lapsed())],
            [Reason.FIRED, Reason.ESCALATED, Reason.CLEARING, Reason.RESOLVED, Reason.FIRED_AGAIN, Reason.NONE, Reason.ESCALATED],
            id="a new firing begins anew",
        ),
    ],
)
def test_an_escalation_is_this_table(events: list[tuple[float, Event]], reasons: list[Reason]):
    assert escalate(*events)[1] == reasons


def test_who_is_told_only_when_a_silence_ends_has_the_whole_time_to_see_to_it():
    alert, _ = escalate((0, Seen(BROKEN, silence=ALL_EAST)), (1000, Hushed(None)))
    assert alert is not None
    assert due(alert, for_s=0, clear_s=0, escalation=STEPS) == 1300


def test_who_is_asked_late_has_as_long_as_if_it_had_been_in_time():
    alert, reasons = escalate((0, Seen(BROKEN)), (5000, Lapsed()), (5001, Lapsed()))
    assert alert is not None
    assert reasons[1:] == [Reason.ESCALATED, Reason.NONE]
    assert due(alert, for_s=0, clear_s=0, escalation=STEPS) == 5600


def test_due_says_when_the_next_step_of_the_escalation_is():
    alert, _ = escalate((0, Seen(BROKEN)), (300, Lapsed()))
    assert alert is not None
    assert due(alert, for_s=0, clear_s=0, escalation=STEPS) == 900
    assert due(alert, for_s=0, clear_s=0) is None


def test_what_fires_into_a_silence_is_told_when_the_silence_ends_and_never_if_it_is_well_by_then():
    pending, _ = walk((0, Seen(BROKEN)), for_s=10)
    assert pending is not None
    hushed, _ = step(pending, Hushed(ALL_EAST), 1, for_s=10, clear_s=0)
    muted, reason = step(hushed, Seen(BROKEN), 10, for_s=10, clear_s=0)
    assert muted is not None
    assert (reason, muted.state, muted.told) == (Reason.MUTED, State.FIRING, False)
    assert step(muted, Seen(LESS), 11, for_s=10, clear_s=0)[1] is Reason.NONE
    assert step(muted, Gone(), 12, for_s=10, clear_s=0) == (None, Reason.PASSED)
    told, reason = step(muted, Hushed(None), 13, for_s=10, clear_s=0)
    assert told is not None
    assert (reason, told.told) == (Reason.FIRED, True)
    assert step(told, Gone(), 14, for_s=10, clear_s=0)[1] is Reason.RESOLVED


def test_an_alert_joins_the_message_that_speaks_for_its_cause_already():
    alert, _ = walk((0, Seen(BROKEN, joins="other-1")), (1, Gone()), (2 + REOPEN_S, Seen(BROKEN)))
    assert alert is not None
    assert alert.message == f"{alert.id}-2", "long after, it speaks for itself"
    alert, _ = walk((0, Seen(BROKEN, joins="other-1")), (1, Gone()), (60, Seen(BROKEN, joins="third-1")))
    assert alert is not None
    assert alert.message == "other-1", "back soon, it speaks where it spoke"


@pytest.mark.parametrize(
    ("match", "fits"),
    [
        ({"cluster": "east"}, True),
        ({"cluster": "west"}, False),
        ({"namespace": "mynamespace", "cause": "MESH101"}, True),
        ({"namespace": "mynamespace", "cause": "subset-undefined"}, False),
        ({"host": "destination.*"}, True),
        ({"host": "destination"}, False),
        ({"resource": "VirtualService */destination"}, True),
        ({"colour": "red"}, False),
        ({}, False),
    ],
)
def test_a_silence_fits_when_all_of_it_does(match: dict[str, str], fits: bool):  # noqa: FBT001 - a column of the table
    assert Silence(id="s", match=match, by=ANA, at=0, until=1).fits(BROKEN) is fits


def test_due_says_when_an_ack_a_silence_or_the_flapping_may_end():
    alert, _ = walk((0, Seen(BROKEN)), (1, Acked(Ack(by=ANA, at=1, until=60))))
    assert alert is not None
    assert due(alert, for_s=0, clear_s=0) == 60
    hushed, _ = step(alert, Hushed(replace(ALL_EAST, until=50)), 2, for_s=0, clear_s=0)
    assert hushed is not None
    assert due(hushed, for_s=0, clear_s=0) == 50
    flapping, _ = walk((0, Seen(BROKEN)), (1, Gone()), (2, Seen(BROKEN)), (3, Gone()), (4, Seen(BROKEN)))
    assert flapping is not None
    assert flapping.flapping
    assert due(flapping, for_s=0, clear_s=0) == 4 + FLAP_S
    well, _ = step(flapping, Gone(), 5, for_s=0, clear_s=0)
    assert well is not None
    assert due(well, for_s=0, clear_s=0) == 5 + FLAP_S


class AnySequence(RuleBasedStateMachine):
    """Every sequence of events: no firing is lost, none resolves without a look, none is posted twice."""

    FOR, CLEAR = 10.0, 30.0

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.alert: Alert | None = None
        self.posted: list[str] = []
        self.told = False  # what a reader of the channel believes
        self.done = False  # somebody called it done, and a reader knows that it is seen still
        self.seen_since: float | None = None  # broken for all we know: no look has found it gone
        self.gone_since: float | None = None  # looked at and gone in every look since
        self.last: Event | None = None  # of what was looked at
        self.silence: Silence | None = None

    def happen(self, event: Event) -> None:
        before = self.alert
        if isinstance(event, Seen | Gone | Unseen):
            self.last = event
        match event:
            case Seen():
                self.seen_since = self.now if self.seen_since is None else self.seen_since
                self.gone_since = None
            case Gone():
                self.gone_since = self.now if self.gone_since is None else self.gone_since
                self.seen_since = None
            case Unseen():
                self.gone_since = None
            case Hushed(silence):
                self.silence = silence
            case _:
                pass
        self.alert, reason = step(before, event, self.now, for_s=self.FOR, clear_s=self.CLEAR)
        if reason is Reason.FIRED:
            assert not self.told
            assert self.alert is not None
            assert self.alert.message not in self.posted, "posted twice"
            self.posted.append(self.alert.message)
        if reason in {Reason.FIRED_AGAIN, Reason.FLAPPING}:
            assert not self.told
            assert self.alert is not None
            assert self.alert.message == self.posted[-1], "an edit of a message that was never posted"
        if reason in {Reason.FIRED, Reason.FIRED_AGAIN, Reason.FLAPPING}:
            assert isinstance(event, Seen | Hushed)
            assert self.silence is None or reason is not Reason.FIRED, "told into a silence"
            if isinstance(event, Seen):
                assert self.seen_since is not None
                assert self.now - self.seen_since >= self.FOR
            self.told = True
        if reason is Reason.CLOSED:
            assert self.told
            self.told, self.done = False, True
        if reason in {Reason.REOPENED, Reason.WORSE}:
            assert self.done
            self.told, self.done = True, False
        if reason is Reason.RESOLVED:
            assert self.told or self.done
            self.done = False
            assert isinstance(event, Gone), "resolved without a look"
            assert self.gone_since is not None
            assert self.now - self.gone_since >= self.CLEAR
            self.told = False
        if reason not in QUIET:
            assert self.posted, "something is said before there is a message"
        if reason is Reason.UNKNOWN:
            assert isinstance(event, Unseen)

    @rule(share=st.sampled_from([0.05, 0.6, 0.95]))
    def seen(self, share: float) -> None:
        self.happen(Seen(replace(BROKEN, failing_share=share), silence=self.silence))

    @rule(until=st.sampled_from([None, 60.0]), by=st.sampled_from([ANA, BEN]))
    def acked(self, until: float | None, by: str) -> None:
        before = self.alert.ack if self.alert else None
        self.happen(Acked(Ack(by=by, at=self.now, until=None if until is None else self.now + until)))
        assert before is None or (self.alert is not None and self.alert.ack == before)

    @rule(by=st.sampled_from([ANA, BEN]))
    def unacked(self, by: str) -> None:
        self.happen(Unacked(by))

    @rule(by=st.sampled_from([ANA, BEN]))
    def handed(self, by: str) -> None:
        self.happen(Handed(Ack(by=by, at=self.now), ANA))

    @rule(by=st.sampled_from([ANA, BEN]))
    def closed(self, by: str) -> None:
        self.happen(Closed(Close(by=by, at=self.now, why="done")))

    @rule(by=st.sampled_from([ANA, BEN]))
    def reopened(self, by: str) -> None:
        self.happen(Reopened(by))

    @rule(text=st.sampled_from(["a", "b"]))
    def noted(self, text: str) -> None:
        self.happen(Noted(Note(by=ANA, at=self.now, text=text)))

    @rule()
    def lapsed(self) -> None:
        self.happen(Lapsed())

    @rule(on=st.booleans())
    def hushed(self, on: bool) -> None:  # noqa: FBT001 - hypothesis draws it by name
        self.happen(Hushed(ALL_EAST if on else None))

    @rule(places=st.lists(st.sampled_from(["#a", "#b", "U0ANA"]), max_size=2))
    def sent(self, places: list[str]) -> None:
        before = self.alert
        self.happen(Sent(tuple(map(Receiver, places))))
        if before is not None and self.alert is not None:
            assert self.alert.places[: len(before.places)] == before.places, "a place is forgotten while its message stands"

    @rule()
    def gone(self) -> None:
        self.happen(Gone())

    @rule(why=st.sampled_from(["403", "down"]))
    def unseen(self, why: str) -> None:
        self.happen(Unseen(why))

    @rule(seconds=st.sampled_from([0.2, 5.0, 10.0, 30.0, REOPEN_S]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    @precondition(lambda self: self.alert is not None)
    def restart(self) -> None:
        self.alert = msgspec.json.decode(msgspec.json.encode(self.alert), type=Alert)

    @rule()
    @precondition(lambda self: self.last is not None)
    def again(self) -> None:
        assert self.last is not None
        before = self.alert
        self.happen(self.last)
        if before is not None and self.alert is not None and self.alert.state is before.state is State.RESOLVED:
            assert self.alert == before

    @invariant()
    def no_firing_is_lost(self) -> None:
        if isinstance(self.last, Seen) and self.seen_since is not None:
            assert self.alert is not None
            assert self.alert.state in {State.FIRING, State.PENDING, State.CLOSED}
            assert (self.alert.state is State.CLOSED) == self.done, "what somebody called done is told as that"
            if self.alert.state is State.PENDING:
                moment = due(self.alert, for_s=self.FOR, clear_s=self.CLEAR)
                assert moment is not None
                assert moment <= self.seen_since + self.FOR

    @invariant()
    def the_reader_believes_what_is_so(self) -> None:
        assert self.told == (self.alert is not None and self.alert.state is State.FIRING and self.alert.told)

    @invariant()
    def what_fires_and_is_not_silenced_is_told(self) -> None:
        if self.alert is not None and self.alert.state is State.FIRING and self.alert.silence is None:
            assert self.alert.told

    @invariant()
    def what_is_pending_has_nobody(self) -> None:
        if self.alert is not None and self.alert.ack is not None:
            assert self.alert.fired_at is not None
            assert self.alert.ack.at >= self.alert.fired_at


TestAnySequence = AnySequence.TestCase
