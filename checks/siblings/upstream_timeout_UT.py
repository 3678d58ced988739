"""upstream-timeout-UT (MESH943)."""  # noqa: N999 - named like its cause

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from checks.case import short
from checks.finding import Finding, check
from checks.measured import finding, flagged, measure
from checks.routing import virtual_service

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from checks.case import Branch, Case

_RULE = re.compile(r"spec\.http\[(\d+)\]")


@check("upstream-timeout-UT")
def upstream_timeout_UT(case: Case) -> Iterator[Finding]:  # noqa: N802 - named like its cause
    """The server did not answer within the time that the route gives it: 504 (flag UT).

    Istio sets no timeout by itself: a VirtualService's `timeout` (or an HTTPRoute's, or the caller's header x-envoy-upstream-rq-timeout-ms) does,
    and it counts all retries together. The call was routed and arrived; the app is slower than the rule allows.

    How to see it: the access log says 504 UT response_timeout, with a duration that is the timeout.

    How to fix it: make the app faster, or give the rule the time that it needs; every proxy on the way must wait at least as long as the next.
    """
    measured = measure(case, flagged("UT"))
    if measured is None:
        return
    host = short(case.host)
    limit = _limit(case, measured.branches)
    if limit is None:
        yield finding(
            case,
            "upstream-timeout-UT",
            measured,
            what=f"get 504: {host} did not answer in time (UT), which is no fault of routing",
            fix=f"Make {host} faster, or let its callers wait longer: no VirtualService says how long, so that a header of theirs or an HTTPRoute does.",
        )
        return
    cluster, resource, path, value = limit
    namespace, _, name = resource.partition(" ")[2].partition("/")
    yield finding(
        case,
        "upstream-timeout-UT",
        measured,
        what=f"get 504: {host} did not answer within the {value} of {resource} (UT), which is no fault of routing",
        fix=f"Make {host} answer within {value}, or give {path} of {resource} the time that it needs.",
        at=(cluster, resource, path),
        evidence=(f"{resource} {path}: {value}",),
        commands=(f"kubectl -n {namespace} get virtualservice {name} -o yaml",),
    )


def _limit(case: Case, branches: Iterable[Branch]) -> tuple[str, str, str, str] | None:
    """The shortest-lived rule that these calls may have met: cluster, VirtualService, field and value; None where none sets a timeout."""
    for b in branches:
        at = _RULE.match(b.path)
        vs = virtual_service(b.view.ups.istiod, b.resource)
        rules = vs.spec.http or () if vs is not None else ()
        if at is None or vs is None or int(at[1]) >= len(rules):
            continue
        value = rules[int(at[1])].timeout
        if value and value.strip("0smh."):
            return case.cluster_of(b), vs.ref, f"spec.http[{at[1]}].timeout", value
    return None
