"""What holds for the whole of the project: its layers, its documentation inside the code, its metadata."""

import ast
import re
from collections.abc import Iterator
from configparser import ConfigParser
from functools import cache
from inspect import getmembers, isclass
from pathlib import Path

import pytest
from django.core.management import call_command

import djwebhooks
from djwebhooks import exceptions

ROOT = Path(djwebhooks.__file__).parent
PROJECT = ROOT.parent

#: A module imports only from rows above its own; a package is one entry, and free inside.
LAYERS = (
    ("", "exceptions", "signals", "conf", "hidden", "private_keys", "words"),
    (
        "signing",
        "encryption",
        "names",
        "payload",
        "versions",
        "capture",
        "retry",
        "network",
        "database",
        "uid",
        "owners",
        "health",
        "subjects",
        "authentication",
        "certificates",
        "handshake",
        "schemas",
        "managers",
        "pages",
        "wakeups",
    ),
    ("catalogue", "filters"),
    ("transports", "models"),
    ("work", "senders", "coalescing", "rows", "creations"),
    ("dispatch", "lanes", "build", "contents", "fairness", "announce", "notices", "replays", "tokens", "listener"),
    ("messages", "verdicts"),
    ("worker", "inline", "feed"),
    ("engines",),
    ("events", "weaknesses"),
    ("model_events",),
    ("adoption", "decorators", "checks", "erasure", "explain", "prune", "stats"),
    ("admin", "api", "portal", "jwks", "metrics", "management", "apps", "testing"),
    ("inbox",),
)
LAYER_OF = {name: number for number, names in enumerate(LAYERS) for name in names}


def list_modules() -> list[Path]:
    return sorted(path for path in ROOT.rglob("*.py") if "migrations" not in path.parts)


def name_module(path: Path) -> str:
    """The dotted name: ``djwebhooks/api/urls.py`` is ``djwebhooks.api.urls``."""
    return ".".join(path.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__")


def name_unit(module: str) -> str:
    """What has a layer: ``djwebhooks.api.urls`` is ``api``, and ``djwebhooks`` itself is the empty name."""
    return module.split(".")[1] if "." in module else ""


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def list_imports(path: Path) -> Iterator[str]:
    """The modules of djwebhooks that the module at *path* imports, wherever in it; ruff sees to it that none is relative."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" if node.module == "djwebhooks" else str(node.module) for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == "djwebhooks")


def name_unit_of_import(name: str) -> str:
    """``from djwebhooks import __version__`` is an import of the package itself."""
    unit = name_unit(name)
    return unit if unit in LAYER_OF or (ROOT / unit).exists() or (ROOT / f"{unit}.py").exists() else ""


modules = pytest.mark.parametrize("path", list_modules(), ids=name_module)


@modules
def test_a_module_has_a_layer(path: Path) -> None:
    """Whoever adds a module decides on its layer."""
    assert name_unit(name_module(path)) in LAYER_OF


@modules
def test_a_module_imports_only_from_lower_layers(path: Path) -> None:
    """No import points up or sideways, so there are no cycles."""
    own = name_unit(name_module(path))
    wrong = [
        name
        for name in list_imports(path)
        if (unit := name_unit_of_import(name)) not in ("", own) and LAYER_OF.get(unit, 99) >= LAYER_OF.get(own, -1)
    ]

    assert wrong == []


@modules
def test_a_module_has_no_lazy_imports(path: Path) -> None:
    """Imports stand at the top; only ``AppConfig.ready()`` must wait, as models cannot be imported before it."""
    functions = [
        node
        for node in ast.walk(parse(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not (path.name == "apps.py" and node.name == "ready")
    ]
    lazy = [node.lineno for function in functions for node in ast.walk(function) if isinstance(node, ast.Import | ast.ImportFrom)]

    assert lazy == []


@modules
def test_a_module_says_what_it_is(path: Path) -> None:
    """Every module has a docstring that begins with one sentence."""
    docstring = ast.get_docstring(parse(path)) or ""

    assert docstring.split("\n\n")[0].endswith((".", ":"))


@modules
def test_a_module_has_a_name_of_its_own(path: Path) -> None:
    """A module is named for what is in it."""
    assert path.stem not in {"utils", "util", "helpers", "helper", "common", "misc"}


def draw_tree(error: type[Exception], indent: str = "") -> Iterator[str]:
    """The tree of exceptions below *error* as the docstring draws it, foreign bases in parentheses."""
    children = [child for child in error.__subclasses__() if child.__module__ == exceptions.__name__]
    for child in children:
        branch, trunk = ("└──", "    ") if child is children[-1] else ("├──", "│   ")
        foreign = ", ".join(base.__name__ for base in child.__bases__ if base.__module__ != exceptions.__name__)
        yield f"{indent}{branch} {child.__name__}" + (f" ({foreign})" if foreign else "")
        yield from draw_tree(child, indent + trunk)


def test_the_exceptions_are_drawn_as_they_are() -> None:
    """The tree in the docstring is the real one."""
    drawn = [re.sub(r"(\w) +\(", r"\1 (", line) for line in (exceptions.__doc__ or "").splitlines() if "──" in line]

    assert drawn == list(draw_tree(exceptions.DjWebhooksError))


def test_every_exception_explains_itself() -> None:
    """The docstring is the message of an exception that is raised without one."""
    errors = [error for _, error in getmembers(exceptions, isclass) if error.__module__ == exceptions.__name__]

    assert all((error.__doc__ or "").endswith(".") for error in errors)


@pytest.mark.django_db(databases="__all__")
def test_migrations_are_complete() -> None:
    """The migrations make the very tables that the models describe."""
    call_command("makemigrations", "djwebhooks", "djwebhooks_inbox", check=True, dry_run=True, verbosity=0)


def read_ini(name: str) -> ConfigParser:
    parser = ConfigParser(interpolation=None)
    parser.read(PROJECT / name)
    return parser


def test_the_version_has_one_home() -> None:
    """The package's metadata takes the version from the code."""
    assert read_ini("setup.cfg")["metadata"]["version"] == "attr: djwebhooks.__version__"
    assert re.fullmatch(r"\d+\.\d+\.\d+", djwebhooks.__version__)


def test_what_is_promised_is_tested() -> None:
    """The versions of Python and Django in the classifiers are those of the environments in tox.ini."""
    classifiers = read_ini("setup.cfg")["metadata"]["classifiers"]
    environments = read_ini("tox.ini")["tox"]["env_list"]

    assert set(re.findall(r"Python :: 3\.(\d+)", classifiers)) == set(re.findall(r"py3(\d+)", environments))
    assert {version.replace(".", "") for version in re.findall(r"Django :: (\d\.\d)", classifiers)} == set(
        re.findall(r"\b(\d\d)\b", environments.replace("django", " "))
    )
