"""The laws of checks/: what every check is, so that one file and one scenario folder are all that a new one needs."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml

from checks import diagnosis
from checks.case import SAME_AS
from checks.catalogue import CAUSES
from checks.finding import cause, check

ROOT = Path(__file__).parents[1]
CHECKS = ROOT / "checks"
SCENARIOS = ROOT / "tests" / "scenarios"
REGISTRY = {**diagnosis.registry(), **diagnosis.live()}
FILES = {f.stem: f for family in diagnosis.FAMILIES for f in (CHECKS / family).glob("*.py") if f.stem != "__init__"}


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_id_file_and_function_have_one_name(name: str) -> None:
    function = REGISTRY[name]
    word = name.replace("-", "_")
    assert name in CAUSES
    assert function.__name__ == word  # type: ignore[attr-defined] # a check is a function
    assert Path(inspect.getfile(function)).stem == word
    assert function.__module__.split(".")[1] in diagnosis.FAMILIES


def test_every_file_of_a_family_is_a_check_and_every_family_is_walked() -> None:
    assert {stem.replace("_", "-") for stem in FILES} == set(REGISTRY)
    folders = {p.name for p in CHECKS.iterdir() if p.is_dir() and (p / "__init__.py").exists()}
    assert folders == set(diagnosis.FAMILIES), "a family that registry() does not walk has checks that nobody runs"


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_the_docstring_says_what_it_is_how_to_see_it_and_how_to_mend_it(name: str) -> None:
    page = diagnosis.pages()[name]
    first, _, rest = page.partition("\n\n")
    assert first.endswith(".")
    assert "\n" not in first, "the first sentence stands alone"
    seen, mended = rest.find("How to see it:"), rest.find("How to fix it:")
    assert -1 < seen < mended
    assert all(part.split(":", 1)[1].strip().endswith(".") for part in re.findall(r"How to (?:see|fix) it:[^\0]*?(?=\n\n|$)", rest))


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_check_has_a_scenario_of_its_name_and_its_healthy_twin(name: str) -> None:
    expected = yaml.safe_load((SCENARIOS / name / "expect.yaml").read_text())
    assert name in (*expected["causes"], *expected.get("infos", ()))
    twin = yaml.safe_load((SCENARIOS / f"{name}__healthy" / "expect.yaml").read_text())
    assert twin["causes"] == []
    assert twin["host"] == expected["host"]


def test_the_catalogue_is_the_published_list() -> None:
    published = yaml.safe_load((ROOT / "tests" / "causes.yaml").read_text())
    assert [c["id"] for c in published] == list(CAUSES)
    for said in published:
        assert CAUSES[said["id"]]._asdict() == said


def test_ids_and_codes_are_unique_and_well_formed() -> None:
    codes = Counter(c.code for c in CAUSES.values())
    assert [code for code, n in codes.items() if n > 1] == []
    for name, entry in CAUSES.items():
        assert entry.id == name
        assert re.fullmatch(r"[a-z0-9]+(-[A-Za-z0-9]+)*", name)
        assert re.fullmatch(r"MESH\d{3,4}", entry.code)


def test_a_cause_is_found_by_id_and_by_code_in_any_case() -> None:
    for name, entry in CAUSES.items():
        assert cause(name.upper()) is entry
        assert cause(f" {entry.code.lower()} ") is entry
    assert cause("no-such-cause") is None


def test_a_check_of_an_unknown_or_a_doubled_id_is_refused() -> None:
    with pytest.raises(ValueError, match="not in the catalogue"):
        check("no-such-cause")
    with pytest.raises(ValueError, match="checked twice"):
        check("subset-undefined")(lambda _: iter(()))


def test_the_same_thing_of_other_tools_is_named_by_their_codes() -> None:
    assert set(SAME_AS) <= set(CAUSES)
    for codes in SAME_AS.values():
        assert all(re.fullmatch(r"IST0\d{3}|KIA\d{4}", c) for c in codes)


IMPURE = {"asyncio", "os", "pathlib", "io", "socket", "subprocess", "time", "random", "threading", "logging", "tempfile", "shutil"}


@pytest.mark.parametrize("file", sorted(CHECKS.rglob("*.py")), ids=lambda f: str(f.relative_to(CHECKS)))
def test_checks_are_made_of_the_standard_library_and_msgspec_and_touch_nothing(file: Path) -> None:
    tree = ast.parse(file.read_text())
    imported = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    imported |= {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    roots = {name.partition(".")[0] for name in imported}
    assert roots <= sys.stdlib_module_names | {"msgspec", "checks"}
    assert not roots & IMPURE
    assert not any(isinstance(n, ast.ImportFrom) and n.level for n in ast.walk(tree))
    called = {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    assert not called & {"open", "print", "input", "exec", "eval"}
    clocks = {f"{n.value.id}.{n.attr}" for n in ast.walk(tree) if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name)}
    assert not clocks & {"datetime.now", "datetime.utcnow", "datetime.today", "date.today"}


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_a_check_swallows_no_exception_itself(name: str) -> None:
    tree = ast.parse(inspect.getsource(inspect.getmodule(REGISTRY[name])))  # type: ignore[arg-type] # a check has a module
    assert not [n for n in ast.walk(tree) if isinstance(n, ast.ExceptHandler)]
