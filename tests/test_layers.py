"""The import order of the packages, read from the syntax trees."""

import ast
import graphlib
import pathlib
import re

import pytest

PACKAGE = pathlib.Path(__file__).parent.parent / "laser_jax"
# A package may import those above it, never those below. Packages of one line import each other
# nowhere. `pretrained` stands above `metrics`, because LPIPS and FID are metrics of its networks;
# `sharding` above `evaluation`, which puts batches on devices as training does; `data` above
# `pixels`, which learns its model again from the photographs.
LAYERS = (
    ("allocator", "checks", "compiler", "convolution", "files", "paths", "ranges", "sharding"),
    ("images",),
    ("sparse",),
    ("sklearn",),
    ("tokens",),
    ("pretrained",),
    ("losses", "metrics"),
    ("data",),
    ("pixels",),
    ("figures",),
    ("models",),
    ("priors",),
    ("evaluation",),
    ("training",),
    ("trained_prior",),
    ("trained",),
    ("evaluate_prior",),
    ("evaluate",),
    ("run_page",),
    ("commands",),
    ("__main__",),
)
LEVEL = {package: level for level, packages in enumerate(LAYERS) for package in packages}


def modules():
    """Returns module name -> file for every module of the library."""
    return {
        ".".join(("laser_jax", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(
            ".__init__"
        ): path
        for path in PACKAGE.rglob("*.py")
    }


def imports(path, names):
    """Returns the laser_jax modules that a file imports, including imports in functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("laser_jax"):
            assert node.level == 0
            found |= {
                name if (name := f"{node.module}.{alias.name}") in names else node.module
                for alias in node.names
            }
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("laser_jax")}
    return found


def package_of(module):
    return module.split(".")[1] if "." in module else ""


@pytest.mark.parametrize("module, path", sorted(modules().items()))
def test_module_imports_only_packages_above_its_own(module, path):
    here = package_of(module)
    if not here:
        return  # laser_jax/__init__.py imports lazily
    assert here in LEVEL, f"add {here} to LAYERS"
    for imported in imports(path, modules()):
        there = package_of(imported)
        if there and there != here:
            assert LEVEL[there] < LEVEL[here], f"{module} imports {imported}, which is not above it"


def test_imports_have_no_cycle():
    names = modules()
    graph = {
        module: {i for i in imports(path, names) if i != module and not module.startswith(f"{i}.")}
        for module, path in names.items()
        if module != "laser_jax"
    }
    list(graphlib.TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("folder, others", [
    ("experiments", "benchmarks|tests"), ("benchmarks", "experiments|tests"),
    ("laser_jax", "experiments|benchmarks|tests"),
])  # fmt: skip
def test_experiments_and_benchmarks_import_only_laser_jax(folder, others):
    for path in (PACKAGE.parent / folder).rglob("*.py"):
        found = re.search(rf"^\s*(?:from|import) ({others})\b", path.read_text(), re.MULTILINE)
        assert not found, f"{path}: {found[0]}"
