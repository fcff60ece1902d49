"""Which plugins are found where, what a broken or doubled one costs, and that listing imports nothing."""

import os
import sys
from pathlib import Path

import pytest

from toolkit.registry import DuplicateName, PluginError, Registry, UnknownName, nearest_names

PLUGIN = "class Thing:\n    def build(self):\n        return 'built'\n"


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def tables(kind: str, *rows: str) -> str:
    return "\n".join([f'[project.entry-points."aitk.{kind}"]', *rows, ""])


def add_folder(
    extensions: Path, folder: str, package: str, *rows: str, kind: str = "processes", code: str = PLUGIN
) -> Path:
    """An extension folder with a pyproject.toml and a package of one module."""
    write(extensions / folder / "pyproject.toml", tables(kind, *rows))
    write(extensions / folder / package / "__init__.py", "")
    return write(extensions / folder / package / "config.py", code)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty program folder, somewhere else than the current directory."""
    write(tmp_path / "root/pyproject.toml", "")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    loaded = set(sys.modules)
    yield tmp_path / "root"
    for name in set(sys.modules) - loaded:
        del sys.modules[name]


def discover(root: Path, *extra: Path) -> Registry:
    return Registry.discover(root, {"AITK_EXTENSIONS": os.pathsep.join(map(str, extra))})


def test_own_tables_are_read_without_an_install(root: Path) -> None:
    write(root / "pyproject.toml", tables("models", 'fir = "woods.fir:Fir"', 'oak = "woods.oak:Oak"'))
    entries = discover(root).entries("models")
    assert list(entries) == ["fir", "oak"]
    assert entries["oak"].target == "woods.oak:Oak"
    assert entries["oak"].origin == str(root / "pyproject.toml")


def test_real_program_declares_its_own_plugins() -> None:
    registry = Registry.discover(env={})
    assert registry.entries("processes")["sd_trainer"].extension == "extensions_built_in.sd_trainer"
    assert registry.entries("models")["flux"].extension == "extensions_built_in.flux"
    assert not registry.broken
    assert not any(registry.duplicates(kind) for kind in ("processes", "models", "networks", "optimizers"))


@pytest.mark.parametrize("place", ["here/extensions", "elsewhere", "root/extensions"])
def test_folder_with_tables_is_found_and_loads(root: Path, place: str) -> None:
    add_folder(root.parent / place, "mine", "my_pack", 'thing = "my_pack.config:Thing"')
    registry = discover(root, root.parent / "elsewhere")
    assert "my_pack" not in sys.modules
    assert registry.load("processes", "thing")().build() == "built"
    assert str(root.parent / place / "mine") not in sys.path


def test_package_below_src_and_single_module_load(root: Path) -> None:
    folder = root / "extensions/mine"
    write(folder / "pyproject.toml", tables("networks", 'a = "pack_a.config:Thing"', 'b = "module_b:Thing"'))
    write(folder / "src/pack_a/__init__.py", "")
    write(folder / "src/pack_a/config.py", PLUGIN)
    write(folder / "module_b.py", PLUGIN)
    registry = discover(root)
    assert registry.load("networks", "a").__module__ == "pack_a.config"
    assert registry.load("networks", "b").__module__ == "module_b"


def test_folder_in_the_style_of_ai_toolkit_is_read_as_text(root: Path) -> None:
    write(
        root / "extensions/old/__init__.py",
        "raise RuntimeError('listing must not import')\n"
        "from .family import Family as Renamed\n"
        "class Count:\n    uid = 'count'\n    name = 'Count'\n"
        "AI_TOOLKIT_EXTENSIONS = [Count]\n"
        "AI_TOOLKIT_MODELS: list = [Renamed]\n",
    )
    write(root / "extensions/old/family.py", "class Family:\n    arch: Literal['pine', 'pine2']\n")
    registry = discover(root)
    assert list(registry.entries("processes")) == ["count"]
    assert list(registry.entries("models")) == ["pine", "pine2"]
    assert registry.entries("models")["pine"].target == "extensions.old:Renamed"
    assert not registry.broken


def test_relative_imports_work_although_another_extensions_package_is_loaded(root: Path) -> None:
    write(root / "extensions/trees/__init__.py", "from .oak import Oak\nAI_TOOLKIT_MODELS = [Oak]\n")
    write(root / "extensions/trees/oak.py", "class Oak:\n    arch = 'oak'\n    def build(self): return 'tree'\n")
    write(root.parent / "foreign/extensions/__init__.py", "raise ImportError('foreign')")
    sys.path.insert(0, str(root.parent / "foreign"))
    try:
        assert discover(root).load("models", "oak")().build() == "tree"
    finally:
        sys.path.remove(str(root.parent / "foreign"))


def test_name_that_only_an_import_tells_is_learned_when_a_run_misses_it(root: Path) -> None:
    write(
        root / "extensions/late/__init__.py",
        "class Oak:\n    arch = 'o' + 'ak'\n    def build(self): return 'tree'\nAI_TOOLKIT_MODELS = [Oak]\n",
    )
    registry = discover(root)
    assert registry.entries("models") == {}
    assert [entry.target for entry in registry.unread] == ["extensions.late:Oak"]
    assert registry.load("models", "oak")().build() == "tree"
    assert list(registry.entries("models")) == ["oak"]


def test_unknown_name_says_what_is_near_and_what_is_known(root: Path) -> None:
    write(root / "pyproject.toml", tables("models", 'flux = "f:F"', 'wan = "w:W"'))
    with pytest.raises(
        UnknownName, match=r"no arch is named 'fluks'; did you mean 'flux'\? \(known: flux, wan\)"
    ) as caught:
        discover(root).load("models", "fluks")
    assert caught.value.nearest == ["flux"]


def test_broken_extension_costs_only_the_run_that_names_it(root: Path) -> None:
    add_folder(root / "extensions", "good", "good_pack", 'good = "good_pack.config:Thing"')
    file = add_folder(
        root / "extensions", "bad", "bad_pack", 'bad = "bad_pack.config:Thing"', code="import no_such_module\n"
    )
    registry = discover(root)
    assert registry.load("processes", "good")
    with pytest.raises(PluginError, match="No module named 'no_such_module'") as caught:
        registry.load("processes", "bad")
    assert str(file.parent.parent / "pyproject.toml") in str(caught.value)
    assert "bad_pack.config" not in sys.modules


def test_package_that_fails_at_import_fails_the_same_way_again(root: Path) -> None:
    write(root / "extensions/bad/__init__.py", "AI_TOOLKIT_MODELS = [Oak]\nfrom .oak import Oak\n")
    write(root / "extensions/bad/oak.py", "class Oak:\n    arch = 'oak'\n    def build(self): pass\n")
    registry = discover(root)
    for _ in range(2):
        with pytest.raises(PluginError, match="NameError: name 'Oak' is not defined"):
            registry.load("models", "oak")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[project", "Expected"),
        (tables("modles", 'x = "a.b:C"'), "did you mean 'aitk.models'"),
        (tables("models", 'x = "a.b"'), "is not 'module:attribute'"),
        (tables("models", 'x = "a.b:C"'), "there is no package 'a'"),
        ("", "declares no plugin"),
    ],
)
def test_unusable_declaration_is_told_and_disables_only_itself(root: Path, text: str, reason: str) -> None:
    add_folder(root / "extensions", "good", "good_pack", 'good = "good_pack.config:Thing"')
    file = write(root / "extensions/bad/pyproject.toml", text)
    registry = discover(root)
    assert list(registry.entries("processes")) == ["good"]
    assert [item.origin in {str(file), str(file.parent)} and reason in item.reason for item in registry.broken] == [
        True
    ]
    with pytest.raises(UnknownName, match="not read: "):
        registry.load("processes", "missing")


def test_syntax_error_in_a_folder_is_told(root: Path) -> None:
    write(root / "extensions/bad/__init__.py", "class :")
    assert "SyntaxError" in discover(root).broken[0].reason


def test_class_that_is_no_plugin_is_refused(root: Path) -> None:
    add_folder(root / "extensions", "mine", "no_plugin", 'x = "no_plugin.config:x"', code="x = 3\n")
    with pytest.raises(PluginError, match="is not a plugin"):
        discover(root).load("processes", "x")


def test_one_name_with_two_meanings_is_an_error_when_it_is_used(root: Path) -> None:
    add_folder(
        root / "extensions", "one", "pack_one", 'same = "pack_one.config:Thing"', 'other = "pack_one.config:Thing"'
    )
    add_folder(root / "extensions", "two", "pack_two", 'same = "pack_two.config:Thing"')
    registry = discover(root)
    assert registry.load("processes", "other")
    assert list(registry.duplicates("processes")) == ["same"]
    with pytest.raises(DuplicateName) as caught:
        registry.load("processes", "same")
    for folder in ("one", "two"):
        assert str(root / "extensions" / folder / "pyproject.toml") in str(caught.value)


def test_copy_of_a_folder_that_keeps_its_names_is_an_error(root: Path) -> None:
    add_folder(root / "extensions", "one", "the_pack", 'same = "the_pack.config:Thing"')
    add_folder(root.parent / "here/extensions", "one", "the_pack", 'same = "the_pack.config:Thing"')
    with pytest.raises(DuplicateName):
        discover(root).load("processes", "same")


def test_two_folders_cannot_share_one_python_package(root: Path) -> None:
    add_folder(root / "extensions", "one", "the_pack", 'a = "the_pack.config:Thing"')
    add_folder(root / "extensions", "two", "the_pack", 'b = "the_pack.config:Thing"')
    registry = discover(root)
    registry.load("processes", "a")
    with pytest.raises(PluginError, match="another package called the_pack"):
        registry.load("processes", "b")


def test_same_folder_by_two_ways_is_one_entry(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_folder(root / "extensions", "mine", "my_pack", 'thing = "my_pack.config:Thing"')
    monkeypatch.chdir(root)
    registry = discover(root, root / "extensions")
    assert not registry.duplicates("processes")
    assert registry.load("processes", "thing")


def test_installed_distribution_is_found_and_its_edited_folder_wins(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = root.parent / "site"
    write(site / "my_dist-2.1.dist-info/METADATA", "Metadata-Version: 2.1\nName: my-dist\nVersion: 2.1\n")
    write(site / "my_dist-2.1.dist-info/entry_points.txt", "[aitk.processes]\nthing = my_pack.config:Thing\n")
    write(site / "my_pack/__init__.py", "")
    write(site / "my_pack/config.py", PLUGIN)
    monkeypatch.syspath_prepend(str(site))
    entry = discover(root).entries("processes")["thing"]
    assert (entry.origin, entry.extension) == ("distribution my-dist 2.1", "my_pack")

    file = add_folder(root / "extensions", "mine", "my_pack", 'thing = "my_pack.config:Thing"')
    registry = discover(root)
    assert not registry.duplicates("processes")
    assert sys.modules[registry.load("processes", "thing").__module__].__file__ == str(file)


def test_nearest_names_ignore_case() -> None:
    assert nearest_names("ADAMW", ["adamw", "lion"]) == ["adamw"]
