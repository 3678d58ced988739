r"""What the command line says of itself: help that teaches with examples. Read at every start, so it imports nothing.

A paragraph that begins with a line of its own `\b` keeps its line breaks.
"""

from __future__ import annotations


def _page(does: str, *examples: tuple[str, str], after: str = "") -> str:
    shown = "\n".join(f"  {command}\n      {what}" for command, what in examples)
    return f"{does}\n\n\b\nExamples:\n{shown}" + (f"\n\n\b\n{after}" if after else "")


_EXIT = "Exit status: 0 nothing at severity error, 1 some error, 2 the question could not be answered."

MESHWHY = _page(
    "Why does a call into the mesh fail? Names the cause, the share of requests it breaks, the proof, and the change that repairs it.",
    ("meshwhy why destination.mynamespace --context east", "ask a live cluster, through your kubeconfig"),
    ("meshwhy sweep --context east --context west", "everything that is wrong in one mesh of two clusters"),
    (
        "kubectl get -A ns,svc,endpointslices,pods,cm,vs,dr,se,gw -o yaml | meshwhy sweep --from -",
        "ask manifests, without access to a cluster",
    ),
    ("meshwhy demo", "see the bot at work in a Slack of its own, nothing to set up"),
    after="Nothing is ever changed in a cluster: only get, list and watch are sent, and with --probe GETs to pods by port-forward.",
)
WHY = _page(
    "Say why calls to HOST fail: the diagnosis of one host.",
    ("meshwhy why destination.mynamespace", "a Service, in the cluster of your current context"),
    ("meshwhy why destination --from east.yaml", "a short name, when it is the only one"),
    ("meshwhy why api.partner.example:8443 --from west.tar.gz", "one port of a ServiceEntry's host"),
    (
        "meshwhy why destination --envoy shop/web-7f=http://127.0.0.1:15000",
        "beside the answer, what that pod's Envoy holds (after kubectl port-forward)",
    ),
    (
        "meshwhy why destination --from bug-report.tar.gz --live bug-report.tar.gz",
        "objects and running parts, both from an istioctl bug-report",
    ),
    ("meshwhy why destination --at 14:02 --config meshwhy.yaml", "as it was at 14:02, from what the bot kept"),
    ("meshwhy why destination.mynamespace -o json | jq .verdict", "for scripts: the form is a promise"),
    after=_EXIT,
)
RUNBOOK = _page(
    "Take the steps that a specialist would: rules, endpoints, the caller's Envoy, gateways, istiod, access logs, Prometheus, what changed.",
    ("meshwhy runbook destination.mynamespace --context east", "what the objects show; the rest is said to be not looked at"),
    ("meshwhy runbook destination --from bug-report.tar.gz --live bug-report.tar.gz", "with the proxies, istiods and logs of a bug-report"),
    ("meshwhy runbook destination --envoy shop/web-7f=http://127.0.0.1:15000", "with that pod's Envoy (after kubectl port-forward)"),
    after=_EXIT,
)
ROUTES = _page(
    "Show the routes of HOST as callers' Envoys hold them. Rules, shares, Envoy cluster names and endpoints; without HOST those of every host.",
    ("meshwhy routes destination.mynamespace", "as every viewpoint sees it"),
    ("meshwhy routes destination.mynamespace --as shop", "as the sidecars of namespace shop see it"),
    ("meshwhy routes --as east:edge/public-7f9c-x2x4b", "all that one pod, here a gateway, holds"),
    after=_EXIT,
)
SWEEP = _page(
    "List every finding of every host.",
    ("meshwhy sweep --context east", "one cluster"),
    ("meshwhy sweep --from east=east.yaml --from west=west/", "two recorded clusters of one mesh"),
    ("meshwhy sweep --from prod/east=east.yaml --from lab/west=west/", "two meshes"),
    ("meshwhy sweep --config meshwhy.yaml -o json", "the clusters that the bot watches"),
    after=_EXIT,
)
WHATIF = _page(
    "Weigh a change before it is made: the findings that it would introduce and resolve. Nothing is applied.",
    ("meshwhy whatif shift-to-v2.yaml --context east", "a file as kubectl apply would take it"),
    ("kustomize build . | meshwhy whatif - --config meshwhy.yaml", "rendered manifests, against the clusters that the bot watches"),
    ("meshwhy whatif --delete old-rule.yaml --from east=east.yaml", "as if its objects were deleted"),
    ("meshwhy whatif east=a.yaml west=b.yaml --context east --context west", "each file in its own cluster"),
    (
        "meshwhy whatif manifests/ --from prod.tar.gz -o github",
        "a gate for pull requests: annotations, and status 1 when something would break",
    ),
    after="""An object is replaced in every cluster that has it; a new one of Istio, the Gateway API or the core group is created
where the control planes are. One without metadata.namespace is of namespace default. What follows for certain is
weighed too: endpoints follow Services and pods, and what a workload or a Namespace holds goes with it. New pods of a
Deployment are not foreseen: give them and their EndpointSlices if they count.

Exit status: 0 nothing at severity error is introduced, 1 something is, 2 the question could not be answered.""",
)
CHECKS = _page(
    "List every known cause of a failing call, or explain one.",
    ("meshwhy checks", "the catalogue: what is checked for, and what needs Envoy, istiod or telemetry"),
    ("meshwhy checks subset-empty-weighted", "one cause by its name: how it comes about, how to see it, how to mend it"),
    ("meshwhy checks MESH101", "the same by its code"),
)
RECORD = _page(
    "Record a cluster in a file that the other commands read. Secrets, the environment of applications and the annotations of other tools are left out.",
    ("meshwhy record --context east --out east.tar.gz", "an archive (.tar.gz), YAML, or JSON (.json)"),
    ("meshwhy record --context east --context west --out recordings/", "one file for each cluster in a directory"),
)
RUN = _page(
    "Run the bot. It watches the registered clusters, answers in Slack, posts alerts and edits them as things change.",
    ("meshwhy run --config meshwhy.yaml", "until SIGTERM or Ctrl-C"),
    after="Before the first start: meshwhy doctor --config meshwhy.yaml",
)
DEMO = _page(
    "Run the bot on recorded clusters beside a local Slack page. Nothing to install, no account, no cluster.",
    ("meshwhy demo", "then open the page that it prints, and type /mesh why destination.mynamespace"),
    ("meshwhy demo --every 0", "without the clock that deploys and removes v1; the page has buttons for it"),
)
DOCTOR = _page(
    "Try what the bot needs, and say how to mend what fails. Tokens, scopes, channels, Redis, and each cluster's permissions.",
    ("meshwhy doctor --config meshwhy.yaml", "exit status 1 when something does not work"),
)
ALERT_ROUTES = _page(
    "Say where an alert would be told, whom it would mention, until when it would be held, and which routes of the settings decide that.",
    ("meshwhy alert-routes --config meshwhy.yaml -n payments", "an alert about namespace payments that breaks everything"),
    ("meshwhy alert-routes --config meshwhy.yaml -n payments --share 0.05 --at 2026-12-24T22:00", "a small one, at night"),
    (
        "meshwhy alert-routes --config meshwhy.yaml -n payments --context east",
        "with the labels and annotations that the namespace has there",
    ),
)

CHANGES = _page(
    "Print what changed on HOST's way: who changed which object and when, the newest first.",
    ("meshwhy changes destination.mynamespace", "what objects say of themselves, in the cluster of your current context"),
    (
        "meshwhy changes destination --config meshwhy.yaml",
        "the last 24 hours as the bot kept them: when calls failed, and each change with what differs",
    ),
    after="One change at most is marked as suspicious: what changed just before calls began to fail, what a finding names before all.",
)
AUDIT = _page(
    "Print what people did in Slack, and what they were refused: who, what, when, from where, about what, with which result; the newest first.",
    ("meshwhy audit --config meshwhy.yaml --since 24h", "the last day"),
    ("meshwhy audit --config meshwhy.yaml --verb silence --user U0ABCDEF", "what one person silenced"),
    ("meshwhy audit --config meshwhy.yaml -o json | jq -c 'select(.result==\"denied\")'", "every line is one entry, for scripts"),
    after="It is kept for 90 days in the store that the settings name, and stands in the bot's log as it happens (the key audit).",
)

CHANGE = "What would be applied: FILE, NAME=FILE for one cluster, a directory, an archive, or - for standard input. Repeatable."
DELETE = "What would be deleted: a file with these objects, in the same forms. Repeatable."
HOST = "What is called: a short name, name.namespace, an FQDN, or a ServiceEntry's host, with an optional :port."
AS = "Who calls: [CLUSTER:]NAMESPACE for its sidecars, or [CLUSTER:]NAMESPACE/POD for exactly one proxy. Repeatable."
CONTEXT = "A cluster by its kubeconfig context. Repeatable. Without any source: the current context."
FROM = "A cluster from manifests: PATH, NAME=PATH or MESH/NAME=PATH; a file, a directory, an archive, or - for standard input. Repeatable, one cluster each."
CONFIG = "The clusters that this settings file registers."
CONFIG_RUN = "The settings file."
ENVOY = "A caller's Envoy to compare with: its admin address, or a saved config_dump, clusters, or istioctl bug-report. Only read, never changed. Repeatable."
PROBE = "Ask the running parts too: Envoys, istiods and ztunnels by port-forward, and istiod's log, as far as you are permitted. Only read, never changed."
LIVE = "What was saved of a cluster's running parts: an istioctl bug-report, or a directory of proxies/ and istiod/. Repeatable."
OUTPUT = "text for people, json for scripts, slack for the message that Slack would get."
OUTPUT_AUDIT = "text for people, json for scripts (one entry a line), slack for the message that Slack would get."
USER = "Only what this person did: a Slack user's id."
VERB = "Only this: why, ack, silence, ..."
SINCE = "Only what was done in the last 30m, 24h, 7d."
MOST = "At most so many entries."
OUTPUT_WHATIF = "text for people, json for scripts, slack for the message that Slack would get, github for annotations of a pull request."
COLOR = "Colours: auto means on a terminal, unless NO_COLOR is set."
CHECK = "The name or code of a cause, or the code that istioctl or Kiali has for it."
OUT = "The file to write: .yaml, .json, .tar.gz, or - for standard output; a directory when there are several clusters."
STATE = "Where the demo keeps its state, which is made anew at each start. [default: .demo]"
EVERY = "Seconds between two turns of the clock that deploys or removes v1, until somebody presses a button; 0 for never."
PORT = "The page's port on 127.0.0.1; 0 for any free one."
ROUTED_NAMESPACE = "The namespace that the alert is about."
ROUTED_CLUSTER = "The cluster that it is in, by its registered name."
ROUTED_CAUSE = "Its cause, by name or code."
ROUTED_SHARE = "The share of requests that fails, from 0 to 1."
ROUTED_LABEL = "A label of its object, its Service or its namespace. Repeatable."
ROUTED_TEAM = "Whose it is. Repeatable."
THEN = "How it stood then, as the bot of --config has seen it: 14:02, 2026-11-28T14:02 (this machine's time unless an offset is given), or 10m for ten minutes ago."
ROUTED_AT = "When, in this machine's time unless an offset is given (2026-12-24T22:00+01:00). [default: now]"
VERSION = "Print the version."
