"""Imports go down a floor, never up, and there is no circle: read from the syntax trees."""

import ast
import graphlib
import pathlib

import pytest

PACKAGE = pathlib.Path(__file__).parent.parent / "laser_jax"
FLOORS = {
    "sparse": 0,
    "pretrained": 0.2,
    "losses": 0.5,
    "metrics": 0.5,
    "data": 0.2,
    "figures": 0.2,
    "images": 0.2,
    "files": 0,
    "paths": 0,
    "command_line": 0,
    "progress": 0,
    "stopping": 0,
    "models": 1,
    "inference": 1.5,
    "adversary": 2,
    "optimizer": 2,
    "train_state": 2,
    "sharding": 2,
    "checkpoint": 2,
    "run_config": 2,
    "step": 2.5,
    "settings": 2.5,
    "trained": 2.7,
    "perceptual": 2.7,
    "evaluate": 3,
    "report": 3.5,
    "train": 4,
}
# Floor 0 rooms stand alone.
ROOMS = {name for name, floor in FLOORS.items() if floor == 0}


def modules():
    return {
        ".".join(("laser_jax", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(
            ".__init__"
        ): path
        for path in PACKAGE.rglob("*.py")
    }


def imports(path, names):
    """The laser_jax modules a file imports, at any depth of its code."""
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


def room(module):
    return module.split(".")[1] if "." in module else ""


@pytest.mark.parametrize("module, path", sorted(modules().items()))
def test_imports_go_down(module, path):
    here = room(module)
    if not here:
        return  # the package itself loads lazily
    assert here in FLOORS, f"give {here} a floor"
    for imported in imports(path, modules()):
        there = room(imported)
        if there == here:
            continue
        assert here not in ROOMS, f"{module} imports {imported}: rooms of floor 0 stand alone"
        assert FLOORS[there] < FLOORS[here] or FLOORS[there] == FLOORS[here] == 2, (
            f"{module} imports {imported}, which is not below it"
        )


def test_there_is_no_circle():
    names = modules()
    graph = {
        module: {i for i in imports(path, names) if i != module and not module.startswith(f"{i}.")}
        for module, path in names.items()
        if module != "laser_jax"
    }
    list(graphlib.TopologicalSorter(graph).static_order())
