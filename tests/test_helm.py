"""The chart, rendered by Helm's own engine and held against Kubernetes' schemas, KINDS and the bot's settings."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import kubernetes_validate
import pytest
import yaml
from helm_python import Chart, HelmError, lint

from bot import settings
from checks.resources import KINDS, ConfigMap

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
CHART = ROOT / "helm"
READ = ["get", "list", "watch"]
TOKENS = {
    "AM_TOKEN": "hush",
    "SLACK_BOT_TOKEN": "xoxb-1",
    "SLACK_APP_TOKEN": "xapp-1",
    "SLACK_SIGNING_SECRET": "s",
    "REDIS_URL": "redis://:pw@cache:6379/0",
}
INSTALL: dict[str, Any] = {"image": {"repository": "registry.example/meshwhy"}, "slack": {"existingSecret": "meshwhy-slack"}}
FULL: dict[str, Any] = {
    "image": {"repository": "registry.example/meshwhy", "tag": "1"},
    "imagePullSecrets": [{"name": "login"}],
    "slack": {"mode": "http", "botToken": "xoxb-1", "signingSecret": "s"},
    "clusters": [
        {"name": "local", "in_cluster": True},
        {
            "name": "west",
            "mesh": "prod",
            "kubeconfigSecret": "west.example",
            "namespaces": ["a", "b"],
            "prometheus": {"url": "https://thanos:9090", "ca": "/etc/meshwhy/files/thanos/ca.crt", "cluster_label": "cluster=west"},
        },
        {"name": "north", "mesh": "prod", "kubeconfigSecret": "west.example", "context": "north"},
    ],
    "alerts": {
        "default_channel": "#mesh",
        "for": "1m30s",
        "routes": [{"match": {"namespace": "payments", "label": {"team": "pay"}, "severity": "error"}, "channel": "C0123ABCD"}],
    },
    "redis": {"url": "redis://:pw@cache:6379/0"},
    "persistence": {"enabled": True, "storageClass": "fast"},
    "istio": {"revisions": ["canary"]},
    "secrets": {"enabled": True, "namespaces": ["istio-system", "edge"]},
    "serviceAccount": {"name": "reader", "annotations": {"a": "b"}},
    "networkPolicy": {"enabled": True},
    "nodeSelector": {"a": "b"},
    "tolerations": [{"operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "podAnnotations": {"c": "d"},
    "podLabels": {"e": "f"},
    "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
    "files": ["thanos"],
}


@pytest.fixture(scope="module")
def chart() -> Iterator[Chart]:
    with Chart.load(CHART) as loaded:
        yield loaded


def rendered(
    chart: Chart, values: dict[str, Any], *, name: str = "meshwhy", namespace: str = "ops"
) -> dict[tuple[str, str], dict[str, Any]]:
    """What Helm would apply, by kind and name."""
    texts = chart.render(values, name=name, namespace=namespace)
    documents = [d for path, text in sorted(texts.items()) if path.endswith(".yaml") for d in yaml.safe_load_all(text) if d]
    found = {(d["kind"], f"{d['metadata'].get('namespace', '')}/{d['metadata']['name']}"): d for d in documents}
    assert len(found) == len(documents)
    return found


def of_kind(objects: dict[tuple[str, str], dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [o for (k, _), o in objects.items() if k == kind]


def container(objects: dict[tuple[str, str], dict[str, Any]]) -> dict[str, Any]:
    (deployment,) = of_kind(objects, "Deployment")
    (only,) = deployment["spec"]["template"]["spec"]["containers"]
    return dict(only)


def granted(rules: list[dict[str, Any]]) -> set[str]:
    """`plural.group` of every resource that some rule names, as Kind.key writes it."""
    return {f"{r}.{g}" if g else r for rule in rules for g in rule["apiGroups"] for r in rule["resources"]}


def loaded(objects: dict[tuple[str, str], dict[str, Any]], folder: Path) -> settings.Settings:
    """The rendered config file as the bot reads it."""
    (config,) = of_kind(objects, "ConfigMap")
    file = folder / "config.yaml"
    file.write_text(config["data"]["config.yaml"])
    return settings.load(file, TOKENS)


@pytest.mark.parametrize(
    "values", [INSTALL, FULL, {"rbacOnly": True}, {**INSTALL, "runAsUser": None}], ids=["least", "full", "rbac-only", "openshift"]
)
def test_every_rendered_object_is_valid_for_kubernetes(chart: Chart, values: dict[str, Any]):
    objects = rendered(chart, values)
    assert objects
    for each in objects.values():
        kubernetes_validate.validate(each, "1.37", strict=True)


def test_the_validation_would_see_a_misspelt_field(chart: Chart):
    (deployment,) = of_kind(rendered(chart, INSTALL), "Deployment")
    deployment["spec"]["template"]["spec"]["containers"][0]["imagge"] = "x"
    with pytest.raises(kubernetes_validate.ValidationError, match="imagge"):
        kubernetes_validate.validate(deployment, "1.37", strict=True)


def test_helm_finds_nothing_to_complain_about():
    for values in (INSTALL, FULL, {"rbacOnly": True}):
        found = lint(CHART, values, strict=True)
        assert found["errors"] == []
        assert [m["error"] for m in found["messages"]] == ["icon is recommended"]


def test_the_rules_grant_exactly_the_kinds_that_are_read():
    rules = yaml.safe_load((CHART / "files" / "rbac-rules.yaml").read_text())
    assert granted(rules) == {k.key for k in KINDS}
    resources = [(g, r) for rule in rules for g in rule["apiGroups"] for r in rule["resources"]]
    assert len(resources) == len(set(resources))
    assert all(rule["verbs"] == READ for rule in rules)


def test_the_cluster_role_holds_the_rules_and_nothing_else(chart: Chart):
    rules = yaml.safe_load((CHART / "files" / "rbac-rules.yaml").read_text())
    for values in (INSTALL, {"rbacOnly": True}):
        (role,) = of_kind(rendered(chart, values), "ClusterRole")
        assert role["rules"] == rules


def test_of_the_config_maps_only_istiods_own_may_be_read(chart: Chart):
    (key,) = (k.key for k in KINDS if k.struct is ConfigMap)
    (role,) = of_kind(rendered(chart, {**INSTALL, "istio": {"revisions": ["canary", "1-30"]}}), "ClusterRole")
    names = [rule.get("resourceNames") for rule in role["rules"] if key in rule["resources"]]
    assert names == [["istio"], ["istio-canary", "istio-1-30"]]
    assert granted(role["rules"]) == {k.key for k in KINDS}


def test_no_form_of_the_chart_grants_a_verb_that_writes(chart: Chart):
    for values in (INSTALL, FULL, {"rbacOnly": True, "secrets": {"enabled": True}}):
        objects = rendered(chart, values)
        verbs = {v for kind in ("ClusterRole", "Role") for role in of_kind(objects, kind) for rule in role["rules"] for v in rule["verbs"]}
        assert verbs == set(READ)


@pytest.mark.parametrize(
    ("switch", "rule"),
    [
        ("deep", {"apiGroups": [""], "resources": ["pods/portforward"], "verbs": ["get", "create"]}),
        ("logs", {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]}),
    ],
)
def test_probes_get_exactly_one_right_more_by_their_switch_and_the_bot_hears_of_it(
    chart: Chart, tmp_path: Path, switch: str, rule: dict[str, Any]
):
    rules = yaml.safe_load((CHART / "files" / "rbac-rules.yaml").read_text())
    for values in ({**INSTALL, switch: True}, {"rbacOnly": True, switch: True}):
        (role,) = of_kind(rendered(chart, values), "ClusterRole")
        assert role["rules"] == [*rules, rule]
    local, west, north = loaded(rendered(chart, {**FULL, switch: True}), tmp_path).clusters
    assert [getattr(c, switch) for c in (local, west, north)] == [True, False, False], "another cluster has a role of its own"
    far = {
        **INSTALL,
        "clusters": [{"name": "west", "kubeconfigSecret": "w", switch: True}, {"name": "here", "in_cluster": True, switch: False}],
    }
    assert [getattr(c, switch) for c in loaded(rendered(chart, {**far, switch: True}), tmp_path).clusters] == [True, False]
    assert not getattr(loaded(rendered(chart, INSTALL), tmp_path).clusters[0], switch)


def test_secrets_are_readable_only_by_the_switch_and_only_in_the_named_namespaces(chart: Chart):
    assert of_kind(rendered(chart, INSTALL), "Role") == []
    roles = of_kind(rendered(chart, {**INSTALL, "secrets": {"enabled": True, "namespaces": ["edge", "edge-eu"]}}), "Role")
    assert [r["metadata"]["namespace"] for r in roles] == ["edge", "edge-eu"]
    assert all(granted(r["rules"]) == {"secrets"} for r in roles)


def test_the_switch_for_secrets_tells_the_bot_as_well(chart: Chart, tmp_path: Path):
    assert loaded(rendered(chart, INSTALL), tmp_path).clusters[0].secrets is None
    on = {**FULL, "secrets": {"enabled": True, "namespaces": ["istio-system", "edge"]}}
    local, west, _ = loaded(rendered(chart, on), tmp_path).clusters
    assert local.secrets == ("istio-system", "edge")
    assert west.secrets is None, "another cluster has a role of its own"


def test_bindings_lead_from_the_pods_account_to_the_roles(chart: Chart):
    objects = rendered(chart, FULL)
    (deployment,) = of_kind(objects, "Deployment")
    account = {"kind": "ServiceAccount", "name": deployment["spec"]["template"]["spec"]["serviceAccountName"], "namespace": "ops"}
    assert ("ServiceAccount", f"ops/{account['name']}") in objects
    bindings = [*of_kind(objects, "ClusterRoleBinding"), *of_kind(objects, "RoleBinding")]
    assert len(bindings) == 3
    for binding in bindings:
        ref = binding["roleRef"]
        namespace = binding["metadata"].get("namespace", "") if ref["kind"] == "Role" else ""
        assert (ref["kind"], f"{namespace}/{ref['name']}") in objects
        assert binding["subjects"] == [account]


def test_rbac_only_leaves_an_account_a_role_and_a_token(chart: Chart):
    objects = rendered(chart, {"rbacOnly": True}, name="reader", namespace="ops")
    assert sorted(kind for kind, _ in objects) == ["ClusterRole", "ClusterRoleBinding", "Secret", "ServiceAccount"]
    token = objects["Secret", "ops/reader-meshwhy-token"]
    assert token["type"] == "kubernetes.io/service-account-token"
    assert token["metadata"]["annotations"]["kubernetes.io/service-account.name"] == "reader-meshwhy"


def test_the_pod_is_nobody_and_writes_only_where_a_volume_is(chart: Chart):
    objects = rendered(chart, INSTALL)
    (deployment,) = of_kind(objects, "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 10001
    assert container(objects)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    written = {m["mountPath"] for m in container(objects)["volumeMounts"] if not m.get("readOnly")}
    assert written == {"/var/lib/meshwhy", "/tmp"}  # noqa: S108 - the mount path in the pod
    (open_,) = of_kind(rendered(chart, {**INSTALL, "runAsUser": None}), "Deployment")
    assert "runAsUser" not in open_["spec"]["template"]["spec"]["securityContext"]


def test_what_is_mounted_is_a_volume_and_what_is_a_volume_is_mounted(chart: Chart):
    for values in (INSTALL, FULL):
        objects = rendered(chart, values)
        (deployment,) = of_kind(objects, "Deployment")
        volumes = [v["name"] for v in deployment["spec"]["template"]["spec"]["volumes"]]
        assert len(volumes) == len(set(volumes))
        assert set(volumes) == {m["name"] for m in container(objects)["volumeMounts"]}


def test_the_least_config_is_one_that_the_bot_accepts(chart: Chart, tmp_path: Path):
    given = loaded(rendered(chart, INSTALL), tmp_path)
    assert [c.name for c in given.clusters] == ["local"]
    assert given.clusters[0].in_cluster
    assert given.redis.url is None
    assert given.state_dir == Path("/var/lib/meshwhy")
    assert (given.alerts.for_s, given.alerts.clear_s, given.alerts.default_channel) == (10, 30, "#mesh")


def test_the_full_config_is_one_that_the_bot_accepts(chart: Chart, tmp_path: Path):
    objects = rendered(chart, FULL)
    given = loaded(objects, tmp_path)
    assert given.slack.mode == "http"
    assert given.redis.url is not None
    assert [(c.name, c.mesh, c.context) for c in given.clusters] == [
        ("local", "local", None),
        ("west", "prod", None),
        ("north", "prod", "north"),
    ]
    mounted = {m["mountPath"] for m in container(objects)["volumeMounts"]}
    assert str(given.clusters[1].kubeconfig) == "/etc/meshwhy/kubeconfigs/west.example/kubeconfig"
    assert {"/etc/meshwhy/kubeconfigs/west.example", "/etc/meshwhy/files/thanos"} <= set(mounted)
    assert given.alerts.for_s == 90
    assert given.alerts.routes[0].channel == "C0123ABCD"


@pytest.mark.parametrize("values", [INSTALL, FULL], ids=["existing-secret", "values"])
def test_every_secret_that_the_config_names_is_in_the_pods_environment_and_never_in_the_config_map(chart: Chart, values: dict[str, Any]):
    objects = rendered(chart, values)
    (config,) = of_kind(objects, "ConfigMap")
    text = config["data"]["config.yaml"]
    named = set(re.findall(r"\{env: (\w+)\}", text))
    refs = {e["name"]: e["valueFrom"]["secretKeyRef"] for e in container(objects)["env"] if "valueFrom" in e}
    assert set(refs) == named
    for key, ref in refs.items():
        made = objects.get(("Secret", f"ops/{ref['name']}"))
        assert ref["key"] == key
        assert key in made["stringData"] if made else ref["name"] == values["slack"]["existingSecret"]
    assert not any(secret in text for secret in ("xoxb-1", "xapp-1", ":pw@"))


def test_another_token_starts_another_pod_and_another_config_is_read_by_the_one_that_runs(chart: Chart):
    def checksum(values: dict[str, Any]) -> str:
        (deployment,) = of_kind(rendered(chart, values), "Deployment")
        return str(deployment["spec"]["template"]["metadata"]["annotations"]["checksum/tokens"])

    other_channel = {**INSTALL, "alerts": {"default_channel": "#other"}}
    other_token = {**FULL, "slack": {**FULL["slack"], "botToken": "xoxb-2"}}
    assert checksum(INSTALL) == checksum(other_channel)
    assert checksum(FULL) != checksum(other_token)
    pod = container(rendered(chart, INSTALL))
    (mount,) = [m for m in pod["volumeMounts"] if m["name"] == "config"]
    assert "subPath" not in mount, "Kubernetes never renews a file that is mounted by subPath"
    assert pod["args"] == ["run", "--config", f"{mount['mountPath']}/config.yaml"]


@pytest.mark.parametrize("values", [INSTALL, FULL], ids=["socket", "http"])
def test_the_probes_ask_where_the_bot_answers(chart: Chart, values: dict[str, Any], tmp_path: Path):
    objects = rendered(chart, values)
    ports = {p["name"]: p["containerPort"] for p in container(objects)["ports"]}
    asked = {probe: container(objects)[probe]["httpGet"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert {at["port"] for at in asked.values()} == {"health"}
    assert ports["health"] == loaded(objects, tmp_path).health.port
    assert [at["path"] for at in asked.values()] == ["/livez", "/readyz", "/livez"]


def test_several_bots_share_a_redis_and_one_alone_ends_before_the_next_one_starts(chart: Chart):
    (alone,) = of_kind(rendered(chart, INSTALL), "Deployment")
    assert (alone["spec"]["replicas"], alone["spec"]["strategy"]) == (1, {"type": "Recreate"})
    (three,) = of_kind(rendered(chart, {**FULL, "replicas": 3}), "Deployment")
    assert three["spec"]["replicas"] == 3
    assert three["spec"]["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}


def test_the_replicas_share_the_clusters_when_asked_to(chart: Chart, tmp_path: Path):
    assert not loaded(rendered(chart, FULL), tmp_path).redis.divided
    assert loaded(rendered(chart, {**FULL, "replicas": 3, "redis": {**FULL["redis"], "divided": True}}), tmp_path).redis.divided


def test_only_http_mode_takes_what_slack_sends(chart: Chart):
    socket, http = rendered(chart, INSTALL), rendered(chart, FULL)
    assert [p["name"] for p in container(socket)["ports"]] == ["health"]
    assert of_kind(socket, "Service") == []
    (service,) = of_kind(http, "Service")
    assert service["spec"]["ports"][0]["targetPort"] in {p["name"] for p in container(http)["ports"]}
    (closed,) = of_kind(rendered(chart, {**INSTALL, "networkPolicy": {"enabled": True}}), "NetworkPolicy")
    assert closed["spec"]["ingress"] == []
    (open_,) = of_kind(http, "NetworkPolicy")
    assert open_["spec"]["ingress"] == [{"ports": [{"port": "slack"}]}]


def test_what_an_alertmanager_posts_reaches_the_bot_where_it_is_asked_for(chart: Chart, tmp_path: Path):
    token = {"name": "AM_TOKEN", "valueFrom": {"secretKeyRef": {"name": "meshwhy-alertmanager", "key": "token"}}}
    both = {"send": [{"url": "http://alertmanager:9093", "labels": {"source": "mesh"}}], "receive": {"token": {"env": "AM_TOKEN"}}}
    objects = rendered(chart, {**INSTALL, "alertmanager": both, "extraEnv": [token], "networkPolicy": {"enabled": True}})
    (service,) = of_kind(objects, "Service")
    assert service["spec"]["ports"] == [{"name": "http-alertmanager", "port": 8080, "targetPort": "health"}]
    (policy,) = of_kind(objects, "NetworkPolicy")
    assert policy["spec"]["ingress"] == [{"ports": [{"port": "health"}]}]
    given = loaded(objects, tmp_path)
    assert given.alertmanager.receive is not None
    assert given.alertmanager.receive.host_labels[0] == "destination_service"
    assert [(to.url, to.labels) for to in given.alertmanager.send] == [("http://alertmanager:9093", {"source": "mesh"})]


def test_a_state_volume_is_claimed_only_when_asked_for(chart: Chart):
    assert of_kind(rendered(chart, INSTALL), "PersistentVolumeClaim") == []
    assert len(of_kind(rendered(chart, FULL), "PersistentVolumeClaim")) == 1
    owned = rendered(chart, {**INSTALL, "persistence": {"enabled": True, "existingClaim": "mine"}})
    assert of_kind(owned, "PersistentVolumeClaim") == []
    (deployment,) = of_kind(owned, "Deployment")
    claims = [
        v["persistentVolumeClaim"]["claimName"] for v in deployment["spec"]["template"]["spec"]["volumes"] if "persistentVolumeClaim" in v
    ]
    assert claims == ["mine"]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({**INSTALL, "replicas": 2}, "replicas above 1 need redis"),
        ({**FULL, "replicas": 0}, "/replicas"),
        ({**INSTALL, "clusters": []}, "/clusters"),
        ({**INSTALL, "clusters": [{"name": "a"}]}, "/clusters/0"),
        ({**INSTALL, "clusters": [{"name": "a", "in_cluster": True, "kubeconfigSecret": "b"}]}, "/clusters/0"),
        ({**INSTALL, "clusters": [{"name": "a b", "in_cluster": True}]}, "/clusters/0/name"),
        ({**INSTALL, "clusters": [{"name": "a", "in_cluster": True, "tokn": "x"}]}, "tokn"),
        ({**INSTALL, "alerts": {"default_channel": "mesh"}}, "/alerts/default_channel"),
        ({**INSTALL, "alerts": {"default_channel": "#mesh", "for": "soon"}}, "/alerts/for"),
        ({**INSTALL, "alerts": {"default_channel": "#mesh", "routes": [{"chanel": "#a"}]}}, "chanel"),
        ({**INSTALL, "slack": {"mode": "rtm"}}, "/slack/mode"),
        ({**INSTALL, "slack": {"botToken": "xapp-1"}}, "/slack/botToken"),
        ({**INSTALL, "slack": {**INSTALL["slack"], "teams": ["prod"]}}, "/slack/teams/0"),
        ({**INSTALL, "access": {"admins": ["sre"]}}, "/access/admins/0"),
        ({**INSTALL, "access": {"admins": ["U0BOSS"], "responders": [{"who": "@sre", "namespaces": "a"}]}}, "/access/responders/0"),
        ({**INSTALL, "access": {"responders": ["@sre"]}}, "set access.admins"),
        ({**INSTALL, "redis": {"url": "http://cache"}}, "/redis/url"),
        ({**INSTALL, "runAsUser": 0}, "/runAsUser"),
        ({**INSTALL, "secrets": True}, "/secrets"),
        ({"slack": INSTALL["slack"]}, "set image.repository"),
        ({"image": INSTALL["image"]}, "set slack.existingSecret, or slack.botToken"),
        ({"image": INSTALL["image"], "slack": {"botToken": "xoxb-1"}}, "set slack.existingSecret, or slack.appToken"),
        ({"image": INSTALL["image"], "slack": {"mode": "http", "botToken": "xoxb-1"}}, "set slack.existingSecret, or slack.signingSecret"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_a_wrong_value_is_refused_by_its_name(chart: Chart, values: dict[str, Any], sentence: str):
    with pytest.raises(HelmError, match=re.escape(sentence)):
        chart.render(values, name="meshwhy", namespace="ops")


def test_who_may_what_reaches_the_bot_and_nothing_is_limited_without_a_word(chart: Chart, tmp_path: Path):
    assert loaded(rendered(chart, INSTALL), tmp_path).access is None
    some = {"responders": ["@sre", {"who": ["#payments", "U0KIM"], "namespace": ["payments-*"]}], "admins": ["U0BOSS"]}
    given = loaded(rendered(chart, {**INSTALL, "access": some, "slack": {**INSTALL["slack"], "teams": ["T0OTHER"]}}), tmp_path)
    assert given.access is not None
    assert given.slack.teams == ("T0OTHER",)
    assert [g.who for g in (*given.access.viewers, *given.access.responders, *given.access.admins)] == [
        ("everyone",),
        ("@sre",),
        ("#payments", "U0KIM"),
        ("U0BOSS",),
    ]


def test_the_charts_words_are_the_words_of_the_config_file(chart: Chart):
    schema = chart.schema
    assert schema is not None

    def keys(model: type[settings._Section]) -> set[str]:
        return {f.alias or name for name, f in model.model_fields.items()}

    parts = schema["properties"]
    own_to_the_chart, not_in_a_pod = {"kubeconfigSecret"}, {"kubeconfig", "path", "envoys", "evidence"}
    assert set(parts["clusters"]["items"]["properties"]) == keys(settings.RegisteredCluster) - not_in_a_pod | own_to_the_chart
    assert set(parts["clusters"]["items"]["properties"]["links"]["properties"]) == keys(settings.Links)
    asked = parts["clusters"]["items"]["properties"]["prometheus"]["properties"]
    assert set(asked) == keys(settings.Prometheus)
    assert set(asked["basic"]["properties"]) == keys(settings.Basic)
    assert set(parts["alerts"]["properties"]) == keys(settings.Alerts)
    assert set(schema["definitions"]["escalation"]["items"]["properties"]) == keys(settings.EscalationStep)
    on_call = parts["alerts"]["properties"]["on_call"]["additionalProperties"]["properties"]
    assert set(on_call) == keys(settings.OnCall)
    assert set(on_call["instead"]["items"]["properties"]) == keys(settings.Substitute)
    assert set(parts["alerts"]["properties"]["pagers"]["additionalProperties"]["properties"]) == keys(settings.Pager)
    assert set(parts["access"]["properties"]) == keys(settings.Access)
    assert set(parts["alertmanager"]["properties"]) == keys(settings.Alertmanagers)
    assert set(parts["alertmanager"]["properties"]["send"]["items"]["properties"]) == keys(settings.AlertmanagerSend)
    assert set(parts["alertmanager"]["properties"]["receive"]["properties"]) == keys(settings.AlertmanagerReceive)
    assert set(schema["definitions"]["grants"]["items"]["anyOf"][1]["properties"]) == keys(settings.Grant)
    told, defined = parts["alerts"]["properties"], schema["definitions"]
    route, match = defined["routes"]["items"]["properties"], defined["match"]["properties"]
    assert set(route) == keys(settings.AlertRoute)
    assert set(route["outside"]["properties"]) == keys(settings.Outside)
    assert set(told["digests"]["items"]["properties"]) == keys(settings.Digest)
    assert set(told["mutes"]["items"]["properties"]) == keys(settings.Mute)
    interval = told["time_intervals"]["additionalProperties"]["items"]["properties"]
    assert set(interval) == keys(settings.TimeInterval)
    assert set(interval["times"]["items"]["properties"]) == keys(settings.TimeOfDay)
    assert set(match) == keys(settings.Match)
    assert set(match["severity"]["enum"]) == {
        word for part in get_args(settings.Match.model_fields["severity"].annotation) for word in get_args(part)
    }


def test_the_schema_knows_every_value_and_every_value_is_in_the_file(chart: Chart):
    schema = chart.schema
    assert schema is not None
    written = yaml.safe_load((CHART / "values.yaml").read_text())
    assert set(schema["properties"]) - {"global"} == set(written)
    for name, part in schema["properties"].items():
        if part.get("additionalProperties") is False:
            assert set(part["properties"]) == set(written[name]), name


def test_the_chart_carries_the_version_of_the_project(chart: Chart):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert chart.metadata["appVersion"] == chart.metadata["version"] == project["version"]
