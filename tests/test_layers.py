"""Who may import whom (late imports count as well), and which modules stay light: the rules of the design as tests."""

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("torch", "diffusers", "transformers", "peft", "accelerate")
FIRST_PARTY = ("run", "jobs", "toolkit", "extensions_built_in")

# folder or module -> what it may import of ours; a new one has to be placed here
LAYERS = {
    "run": {"toolkit.cli", "toolkit.launch"},
    "jobs": {"toolkit.config", "toolkit.registry", "toolkit.launch"},
    "toolkit.cli": {
        "jobs",
        "toolkit.config",
        "toolkit.registry",
        "toolkit.launch",
        "toolkit.plugin_sources",
        "toolkit.reporting",
        "toolkit.run_folder",
        "toolkit.networks",
        "toolkit.weights",
        "toolkit.data",
        "toolkit.models",
        "toolkit.sampling",
        "toolkit.atomic",
    },
    "toolkit.training": {
        "toolkit.config",
        "toolkit.data",
        "toolkit.models",
        "toolkit.networks",
        "toolkit.context",
        "toolkit.run_folder",
        "toolkit.atomic",
    },
    "toolkit.sampling": {
        "toolkit.training",
        "toolkit.data",
        "toolkit.models",
        "toolkit.networks",
        "toolkit.context",
        "toolkit.run_folder",
        "toolkit.atomic",
    },
    "toolkit.trainer": {
        "toolkit.config",
        "toolkit.data",
        "toolkit.models",
        "toolkit.networks",
        "toolkit.weights",
        "toolkit.training",
        "toolkit.sampling",
        "toolkit.reporting",
        "toolkit.context",
        "toolkit.run_folder",
        "toolkit.launch",
        "jobs",
    },
    "toolkit.reporting": {"toolkit.config", "toolkit.run_folder", "toolkit.atomic"},
    "toolkit.captioning": {"toolkit.config", "toolkit.data", "toolkit.models", "toolkit.context", "toolkit.atomic"},
    "toolkit.data": {"toolkit.config", "toolkit.atomic"},
    "toolkit.networks": {"toolkit.config", "toolkit.registry", "toolkit.models", "toolkit.atomic"},
    "toolkit.weights": {"toolkit.config", "toolkit.models", "toolkit.networks", "toolkit.atomic"},
    "toolkit.models": {"toolkit.config", "toolkit.context", "toolkit.atomic"},
    "toolkit.notebook": {
        "toolkit.config",
        "toolkit.data",
        "toolkit.models",
        "toolkit.training",
        "toolkit.sampling",
        "toolkit.reporting",
        "toolkit.context",
    },
    "toolkit.run_folder": {"toolkit.atomic", "toolkit.run_lock"},
    "toolkit.context": {"toolkit.launch"},
    "toolkit.run_lock": set(),
    "toolkit.atomic": set(),
    "toolkit.assets": set(),
    "toolkit.config": {"toolkit.registry"},
    "toolkit.launch": {"toolkit.config", "toolkit.registry", "toolkit.atomic", "toolkit.run_lock"},
    "toolkit.registry": {"toolkit.plugin_sources", "toolkit.plugin_entry"},
    "toolkit.plugin_sources": {"toolkit.plugin_entry"},
    "toolkit.plugin_entry": set(),
    # the names that extensions and notebooks written for ai-toolkit import; the only place that reaches up
    "toolkit.job": {"jobs"},
    "toolkit.extension": {"toolkit.config"},
}
# what an extension may not import of toolkit
NOT_FOR_EXTENSIONS = {"toolkit.cli", "toolkit.job"}


def sources() -> list[Path]:
    folders = [ROOT / name for name in ("jobs", "toolkit", "extensions_built_in", "extensions/example")]
    return [ROOT / "run.py", *(file for folder in folders for file in sorted(folder.rglob("*.py")))]


def module_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def import_nodes(file: Path) -> list[ast.Import | ast.ImportFrom]:
    nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    return [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]


def imports_of(file: Path, with_names: bool = False) -> Iterator[str]:
    """Every imported module of a file, wherever the import stands; with the imported names, `module.name`."""
    for node in import_nodes(file):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        else:
            yield str(node.module)
            if with_names:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer_of(module: str) -> str:
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] in {"toolkit", "extensions_built_in", "extensions"} else parts[0]


def own_imports(file: Path) -> set[str]:
    """Layers that a file imports, but its own; `from toolkit import config` counts as toolkit.config."""
    found = {layer_of(name) for name in imports_of(file, with_names=True) if name.split(".")[0] in FIRST_PARTY}
    return found - {"toolkit", layer_of(module_of(file))}


def test_imports_are_absolute() -> None:
    nodes = [(file, node) for file in sources() for node in import_nodes(file)]
    assert not [f"{file}:{node.lineno}" for file, node in nodes if isinstance(node, ast.ImportFrom) and node.level]


def test_every_module_imports_only_what_its_layer_may() -> None:
    wrong = []
    for file in sources():
        layer = layer_of(module_of(file))
        if layer.startswith("extensions") or layer == "toolkit":
            continue
        assert layer in LAYERS, f"{file}: place {layer} among the layers"
        wrong += [f"{module_of(file)} imports {name}" for name in sorted(own_imports(file) - LAYERS[layer])]
    assert not wrong


def test_layers_have_no_cycle() -> None:
    order: list[str] = []

    def visit(layer: str, above: tuple[str, ...]) -> None:
        assert layer not in above, f"cycle: {' -> '.join([*above, layer])}"
        if layer not in order:
            for below in sorted(LAYERS[layer]):
                visit(below, (*above, layer))
            order.append(layer)

    for layer in LAYERS:
        visit(layer, ())


def test_extensions_import_toolkit_and_the_public_names_of_jobs_only() -> None:
    wrong = []
    for file in sources():
        layer = layer_of(module_of(file))
        if layer.startswith("extensions"):
            others = own_imports(file)
            wrong += [f"{module_of(file)} imports {name}" for name in others if name in NOT_FOR_EXTENSIONS]
            wrong += [f"{module_of(file)} imports {name}" for name in others if name.startswith(("extensions", "run"))]
            wrong += [f"{module_of(file)} imports {name}" for name in imports_of(file) if name.startswith("jobs.")]
    assert not wrong


def test_nothing_of_ours_uses_the_names_for_old_extensions() -> None:
    users = [module_of(file) for file in sources() if {"toolkit.job", "toolkit.extension"} & set(imports_of(file))]
    assert not users


def typing_only(file: Path) -> set[str]:
    """Modules that a file imports for annotations alone."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    blocks = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    return {str(node.module) for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)}


def test_modules_have_no_cycle_not_even_by_late_imports() -> None:
    files = {module_of(file): file for file in sources()}
    graph = {
        module: [name for name in imports_of(file, with_names=True) if name in files and name not in typing_only(file)]
        for module, file in files.items()
    }
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, f"cycle: {' -> '.join([*above[above.index(module) :], module])}"
        if module not in done:
            for below in graph[module]:
                visit(below, (*above, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def light_modules() -> list[str]:
    packages = ["jobs", "toolkit/cli", "toolkit/config", "toolkit/launch"]
    files = [file for package in packages for file in sorted((ROOT / package).rglob("*.py"))]
    files += [
        ROOT / "toolkit" / f"{name}.py" for name in ("registry", "plugin_sources", "plugin_entry", "job", "extension")
    ]
    files += sorted((ROOT / "extensions_built_in").rglob("config.py"))
    return ["run", *(module_of(file) for file in files)]


def run_python(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_light_modules_load_nothing_heavy() -> None:
    code = f"""
import importlib, sys
for name in {light_modules()!r}:
    importlib.import_module(name)
    heavy = [package for package in {HEAVY!r} if package in sys.modules]
    if heavy:
        sys.exit(f"{{name}} loads {{heavy}}")
from toolkit.registry import KINDS, Registry
registry = Registry.discover(env={{}})
for kind in KINDS:
    for name in registry.entries(kind):
        registry.load(kind, name)
        heavy = [package for package in {HEAVY!r} if package in sys.modules]
        if heavy:
            sys.exit(f"{{kind}} {{name}} loads {{heavy}}")
print(len(registry.entries("processes")))
"""
    assert int(run_python(code)) >= 4


@pytest.mark.parametrize("folder", ["config", "datasets", "output", "extensions"])
def test_folders_that_share_a_name_with_others_are_no_packages(folder: str) -> None:
    assert not (ROOT / folder / "__init__.py").exists()


def test_own_datasets_folder_is_not_taken_for_the_package_of_hugging_face() -> None:
    code = """
import importlib.util, run
run.hide_own_datasets()
spec = importlib.util.find_spec("datasets")
assert spec is None or spec.origin is not None, spec
"""
    run_python(code)
