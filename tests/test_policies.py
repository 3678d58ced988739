"""Whom the patterns of an AuthorizationPolicy mean: the rules that istiod makes of them for Envoy (pilot/pkg/security/authz in istio/istio)."""

from __future__ import annotations

import msgspec
import pytest

from checks.resources import PolicyRule
from checks.security import Peer, matched

NEVER, PERHAPS, ALWAYS = 0, 1, 2
SOMEBODY, WEB = Peer("client", known=True), Peer("client", known=True, account="web")


@pytest.mark.parametrize(
    ("field", "pattern", "who", "answer"),
    [
        ("principals", "*", SOMEBODY, ALWAYS),
        ("principals", "*", Peer("", known=False), NEVER),
        ("principals", "cluster.local/ns/client/sa/web", WEB, PERHAPS),  # which trust domain it has nobody says
        ("principals", "cluster.local/ns/client/sa/web", SOMEBODY, PERHAPS),
        ("principals", "cluster.local/ns/other/sa/web", SOMEBODY, NEVER),
        ("principals", "cluster.local/ns/client/*", WEB, PERHAPS),
        ("principals", "cluster.local/ns/cli*", SOMEBODY, PERHAPS),
        ("principals", "cluster.local/ns/other/*", SOMEBODY, NEVER),
        ("principals", "cluster.local/ns/client/sa/jobs*", WEB, NEVER),
        ("principals", "cluster.local/*", WEB, PERHAPS),
        ("principals", "*/ns/client/sa/web", WEB, ALWAYS),
        ("principals", "*/ns/client/sa/jobs", WEB, NEVER),
        ("principals", "*/ns/other/sa/web", SOMEBODY, NEVER),
        ("principals", "*/sa/web", WEB, PERHAPS),
        ("principals", "*/ns/client/*", WEB, NEVER),  # the second star is a character
        ("principals", "cluster.local/ns/*/sa/web", WEB, NEVER),
        ("serviceAccounts", "client/web", WEB, ALWAYS),
        ("serviceAccounts", "client/*", WEB, NEVER),
        ("namespaces", "client", WEB, ALWAYS),
        ("namespaces", "c*t", WEB, ALWAYS),  # of namespaces it stands anywhere
        ("namespaces", "c*x", WEB, NEVER),
        ("namespaces", "*ent", SOMEBODY, ALWAYS),
    ],
)
def test_a_star_means_something_at_one_end_of_an_identity_and_anywhere_in_a_namespace(
    field: str, pattern: str, who: Peer, answer: int
) -> None:
    rule = msgspec.convert({"from": [{"source": {field: [pattern]}}]}, PolicyRule)
    assert matched(rule, who, 80, tcp=False, strictly=True, deny=True) == answer
