"""The documentation says what the code does: settings, checks, names, versions, and a quickstart that runs."""

import ast
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import textwrap
import time
from argparse import ArgumentParser, _SubParsersAction
from configparser import ConfigParser
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from django.apps import apps
from rest_framework.fields import Field

import djwebhooks
from djwebhooks import model_events, signing
from djwebhooks.api import answers, hooks, serializers, urls
from djwebhooks.catalogue import ENTRY_KEYS
from djwebhooks.conf import Settings
from djwebhooks.lanes import REFUSED
from djwebhooks.management.commands.webhooks import Command
from djwebhooks.retry import AUTHENTICATION_ERROR, NOT_PERMITTED
from djwebhooks.testing import fired
from djwebhooks.transports.base import Reply
from tests.test_project import LAYERS, ROOT

PROJECT = ROOT.parent
DOCS = PROJECT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.rst") if "_build" not in path.parts)
TEXTS = [PROJECT / "README.rst", PROJECT / "CONTRIBUTING.rst", *PAGES]
#: Seconds for a process of the quickstart to end. Generous: a slow machine is not an error.
PATIENCE = 60


@dataclass(frozen=True)
class Block:
    """A ``code-block`` of a page."""

    page: Path
    language: str
    caption: str
    text: str


def read_blocks(page: Path) -> list[Block]:
    """The code blocks of a page, in their order."""
    pattern = r"^( *)\.\. code-block:: (\w+)\n((?:\1    :\w+:.*\n)*)\n((?:\1    .*\n|\n)+)"
    blocks = []
    for match in re.finditer(pattern, page.read_text() + "\n", re.MULTILINE):
        caption = re.search(r":caption: (.+)", match[3])
        blocks.append(Block(page, match[2], caption[1] if caption else "", textwrap.dedent(match[4]).strip() + "\n"))
    return blocks


def read_setup() -> ConfigParser:
    parser = ConfigParser(interpolation=None)
    parser.read(PROJECT / "setup.cfg")
    return parser


# -- the reference -----------------------------------------------------------------------------------------------------


def read_settings() -> dict[str, tuple[str, object]]:
    """The settings of the page: their types and defaults by their names."""
    text = (DOCS / "reference" / "settings.rst").read_text()
    found = re.findall(r"^\.\. py:data:: (DJWEBHOOKS_\w+)\n    :type: (.+)\n    :value: (.+)\n\n    \S", text, re.MULTILINE)
    return {name: (kind, eval(value, {"timedelta": timedelta})) for name, kind, value in found}


def test_every_setting_is_documented_as_it_is() -> None:
    """The page has each setting once, with its type, its default and what it means."""
    tree = ast.parse((ROOT / "conf.py").read_text())
    [class_] = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Settings"]
    annotations = {f"DJWEBHOOKS_{node.target.id}": node for node in class_.body if isinstance(node, ast.AnnAssign)}
    expected = {
        name: (ast.unparse(node.annotation), getattr(Settings, name.removeprefix("DJWEBHOOKS_")))
        for name, node in annotations.items()
    }

    assert read_settings() == expected


def read_entry(name: str) -> str:
    """What the page says of a setting, without its head."""
    text = (DOCS / "reference" / "settings.rst").read_text()
    return text.partition(f".. py:data:: {name}\n")[2].partition("\n\n")[2].partition("\n\n")[0]


@pytest.mark.parametrize(("name", "keys"), [("DJWEBHOOKS_EVENTS", ENTRY_KEYS), ("DJWEBHOOKS_MODEL_EVENTS", model_events.KEYS)])
def test_every_key_of_an_entry_is_documented(name: str, keys: tuple[str, ...]) -> None:
    """Where a setting has a dictionary for each entry, the page names all of its keys, and no others."""
    assert set(re.findall(r"``([a-z]+)``", read_entry(name))) == set(keys)


def test_every_extra_is_documented() -> None:
    """The page's table has those that applications may want, and none that are for work on the project."""
    text = (DOCS / "reference" / "settings.rst").read_text()
    table = text[text.index("\nExtras\n") :]
    extras = set(read_setup()["options.extras_require"])

    assert set(re.findall(r"^``(\w+)``", table, re.MULTILINE)) == extras - {"demo", "test", "fuzz", "lint", "docs", "bench"}


def test_extras_are_quoted() -> None:
    """What is to be typed has quotes around an extra: some shells take its brackets for a pattern of file names."""
    assert [page for page in TEXTS if re.search(r"pip install [a-z-]+\[", page.read_text())] == []


def test_no_page_names_a_setting_that_does_not_exist() -> None:
    """Wherever a setting is named, it is one."""
    named = {name for page in TEXTS for name in re.findall(r"\bDJWEBHOOKS_[A-Z_]+\b", page.read_text())}

    assert named - set(Settings().names()) <= {"DJWEBHOOKS_TEST_DATABASE", "DJWEBHOOKS_"}


def test_every_check_is_documented() -> None:
    """The page lists the ids of the system checks, and no others."""
    code = "".join((ROOT / name).read_text() for name in ("checks.py", "weaknesses.py", "inbox/checks.py"))
    ids = re.findall(r'"(djwebhooks(?:_inbox)?\.[EW]\d{3})"', code)
    text = (DOCS / "reference" / "checks.rst").read_text()

    assert re.findall(r"^``(djwebhooks(?:_inbox)?\.[EW]\d{3})``$", text, re.MULTILINE) == sorted(set(ids))


def read_verbs() -> dict[str, ArgumentParser]:
    """The parser of each verb of the command."""
    parser = Command().create_parser("manage.py", "webhooks")
    [verbs] = [action.choices for action in parser._actions if isinstance(action, _SubParsersAction)]
    return dict(verbs)


def test_every_verb_is_documented() -> None:
    """The page has a section for each verb, with each of its arguments as the parser takes it, and no others."""
    text = (DOCS / "reference" / "commands.rst").read_text()
    sections = re.findall(r"^(\w+)\n-+\n((?:(?!\n\w+\n-+\n)[\s\S])+)", text, re.MULTILINE)
    verbs = read_verbs()
    expected = {
        verb: {action.option_strings[-1] if action.option_strings else action.metavar for action in parser._actions}
        for verb, parser in verbs.items()
    }

    assert {
        verb: {"--help", *re.findall(r"^\.\. option:: (\S+)", section, re.MULTILINE)} for verb, section in sections
    } == expected
    assert [verb for verb, parser in verbs.items() if "--database" not in expected[verb]] == ["events", "listen"]
    assert "Every verb except ``listen`` and\n``events`` takes ``--database ALIAS``" in text


def test_every_exception_is_documented() -> None:
    """The page lists all of them, in the order of the module."""
    classes = re.findall(r"^class (\w+)", (ROOT / "exceptions.py").read_text(), re.MULTILINE)
    text = (DOCS / "reference" / "python.rst").read_text()

    assert re.findall(r"^\.\. autoexception:: djwebhooks\.exceptions\.(\w+)$", text, re.MULTILINE) == classes


def test_every_table_of_an_owner_is_documented() -> None:
    """The page about owners names each table that refers to one: whoever changes the owner's model must migrate all of them."""
    text = (DOCS / "how-to" / "owners.rst").read_text()
    paragraph = text[text.index("To change the owner's model afterwards") :].partition("\n\n")[0]
    models = apps.get_app_config("djwebhooks").get_models()
    tables = {model._meta.db_table for model in models if any(field.name == "owner" for field in model._meta.fields)}

    assert set(re.findall(r"``(djw_\w+)``", paragraph)) == tables


def test_hooks_have_one_place() -> None:
    """Wherever a page names the module of an application's hooks, it is ``webhooks``, which the inbox looks for as well."""
    files = [*TEXTS, *(PROJECT / "example_project").rglob("*.py")]

    assert [file for file in files if re.search(r"\bhooks\.py|\.hooks import", file.read_text())] == []


def test_every_error_word_is_documented() -> None:
    """The page's table has the words that a transport may use, those of what comes before or after, and no others."""
    text = (DOCS / "reference" / "wire.rst").read_text()
    table = text[text.index("\nErrors\n") : text.index(".. _retries:")]
    contract = (Reply.__doc__ or "").partition("is one of:")[2].partition(".")[0]

    assert set(re.findall(r"^``(\w+)``", table, re.MULTILINE)) == {
        *re.findall(r"``(\w+)``", contract),
        AUTHENTICATION_ERROR,
        NOT_PERMITTED,
        REFUSED,
    }


def test_every_route_is_documented() -> None:
    """The page about the API has each method of each path, and no others."""
    routes = {
        (method.upper(), re.sub(r"<[^>]+>", "{id}", str(url.pattern)))
        for url in urls.urlpatterns
        for method in getattr(url.callback, "actions", {})
        if method != "head"  # Once it was called, a view answers to it as to GET.
    }
    text = (DOCS / "reference" / "api.rst").read_text()

    assert set(re.findall(r"^``([A-Z]+) (\S+)``", text, re.MULTILINE)) == routes


FIELDS = {
    "a target": serializers.TargetSerializer,
    "a key": serializers.KeySerializer,
    "a target's health": serializers.HealthSerializer,
    "an event": serializers.EventSerializer,
    "an event to fire": serializers.PublicationSerializer,
    "a hook": hooks.HookSerializer,
    "a hook to make": hooks.HookRequestSerializer,
    "an event type": answers.EventTypeSerializer,
    "a delivery": serializers.DeliverySerializer,
    "an attempt": serializers.AttemptSerializer,
    "a replay": serializers.ReplaySerializer,
    "a replay to make": serializers.ReplayOptionsSerializer,
}


def say_written(field: Field[Any, Any, Any, Any]) -> str:
    """The word of the page for what can be done with a field."""
    return "no" if field.read_only else "only" if field.write_only else "yes"


def test_every_field_is_documented() -> None:
    """The page about the API has a table for each serializer, with its fields in their order, and what may be written."""
    text = (DOCS / "reference" / "api.rst").read_text()
    tables = dict(re.findall(r"^\.\. table:: Fields of (.+)\n\n((?:    .+\n)+)", text, re.MULTILINE))
    rows = {title: re.findall(r"^    ``(\w+)`` +(?:(yes|no|only)  )?", table, re.MULTILINE) for title, table in tables.items()}
    expected = {
        title: [(name, say_written(field) if title == "a target" else "") for name, field in serializer().fields.items()]
        for title, serializer in FIELDS.items()
    }

    assert rows == expected


def read_layers() -> list[set[str]]:
    """The rows of the table of layers in CONTRIBUTING.rst."""
    rows: list[set[str]] = []
    for line in (PROJECT / "CONTRIBUTING.rst").read_text().splitlines():
        if re.match(r"\d+ +``", line):
            rows.append(set())
        if rows and re.match(r"(\d+| ) {2,}``", line):
            rows[-1] |= set(re.findall(r"``(\w+)``", line[:50]))
    return rows


def test_the_layers_are_documented_as_they_are() -> None:
    """The table of modules has what exists, each in the row that the tests hold it to."""
    existing = {path.stem for path in ROOT.glob("*.py")} | {path.parent.name for path in ROOT.glob("*/__init__.py")}

    assert read_layers() == [existing.intersection(layer) for layer in LAYERS]


def test_every_promise_has_its_section() -> None:
    """P1 to P9 each say what is promised, how, what is not, what was tried, and which tests hold it."""
    text = (DOCS / "explanation" / "guarantees.rst").read_text()
    sections = re.split(r"^P\d: .+\n-+\n", text, flags=re.MULTILINE)[1:]

    assert re.findall(r"^P(\d): ", text, re.MULTILINE) == list("123456789")
    for section in sections:
        assert re.findall(r"^\*\*(.+)\.\*\*", section, re.MULTILINE)[0] == "Promised"
        assert {"**Not promised.**", "**Tried.**", "**Tests.**"} <= set(re.findall(r"\*\*.+?\*\*", section))


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.name)
def test_named_files_exist(page: Path) -> None:
    """A page names no file of the project that is not there."""
    named = set(re.findall(r"``((?:tests|djwebhooks|docs|example_project|benchmarks)/[\w/]+\.\w+)``", page.read_text()))

    assert {name for name in named if not (PROJECT / name).exists()} == set()


@pytest.mark.parametrize("page", [page for page in TEXTS if read_blocks(page)], ids=lambda page: page.name)
def test_examples_are_python(page: Path) -> None:
    """Every Python block compiles, and what it imports from djwebhooks is there."""
    for block in read_blocks(page):
        if block.language != "python":
            continue
        tree = compile(block.text, str(page), "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("djwebhooks"):
                module = import_module(str(node.module))
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


@pytest.mark.parametrize("page", [page for page in TEXTS if read_blocks(page)], ids=lambda page: page.name)
def test_commands_are_understood(page: Path) -> None:
    """Every line for a console that has a verb of ours is one that its parser takes."""
    parser = Command().create_parser("manage.py", "webhooks")
    lines = [line for block in read_blocks(page) if block.language == "console" for line in block.text.splitlines()]
    prefix = "$ python manage.py webhooks "
    for line in lines:
        if line.startswith(prefix):
            # The function is the reader's own.
            line = line.replace("shop.webhooks.owner_of", "builtins.repr")
            assert parser.parse_args(shlex.split(line.removeprefix(prefix).partition(" > ")[0])).run


@pytest.mark.parametrize("page", [page for page in TEXTS if read_blocks(page)], ids=lambda page: page.name)
def test_json_is_json(page: Path) -> None:
    """What is shown as JSON can be parsed."""
    for block in read_blocks(page):
        if block.language == "json":
            json.loads(block.text)


def test_receivers_can_verify_by_hand() -> None:
    """The function that the page gives to receivers takes what is signed, and nothing else."""
    [block] = [block for block in read_blocks(DOCS / "how-to" / "receiving.rst") if "def is_genuine" in block.text]
    names: dict[str, Any] = {}
    exec(block.text, names)
    secret, now, body = signing.new_secret(), int(time.time()), b'{"a": 1}'
    signature = f"v1,bm8= {signing.sign(secret, 'an-id', now, body)}"
    headers = {"webhook-id": "an-id", "webhook-timestamp": str(now), "webhook-signature": signature}

    assert names["is_genuine"](headers, body, secret)
    assert not names["is_genuine"](headers, body + b" ", secret)
    assert not names["is_genuine"](headers | {"webhook-timestamp": str(now - 3600)}, body, secret)


def read_rows(text: str) -> list[list[str]]:
    """The rows of a page's list tables, each with its cells, but for the headings."""
    rows = [re.split(r"^      - ", row, flags=re.MULTILINE) for row in re.split(r"^    \* - ", text, flags=re.MULTILINE)[1:]]
    cells = [[" ".join(re.split("\n\n", cell)[0].split()) for cell in row] for row in rows]
    return [row for row in cells if row[0] != "What was needed"]


def test_every_need_has_its_answer_and_the_proof() -> None:
    """The tables of what is replaced have no empty cell, and the last one of each row names a page, or a test that is there."""
    text = (DOCS / "explanation" / "replaces.rst").read_text()
    rows = read_rows(text)

    assert len(re.findall("^-+$", text, re.MULTILINE)) == text.count(".. list-table::") == 7
    assert [row for row in rows if len(row) != 3 or not all(row)] == []
    assert [row[2] for row in rows if not re.fullmatch(r"((:(doc|ref|py:data):`[^`]+`|``tests/[^`]+``)(, |$))+", row[2])] == []
    for path, name in re.findall(r"``(tests/[\w/]+\.py)::(\w+)``", text):
        assert f"\ndef {name}(" in (PROJECT / path).read_text(), f"{path}::{name}"


# -- the whole ---------------------------------------------------------------------------------------------------------


def test_every_page_is_in_a_table_of_contents() -> None:
    """No page is left out, and none is named that is not there."""
    listed = ["index"]
    for page in PAGES:
        for toctree in re.findall(r"^\.\. toctree::\n((?:    .*\n|\n)+)", page.read_text() + "\n", re.MULTILINE):
            entries = [line.strip() for line in toctree.splitlines() if line.strip() and not line.strip().startswith(":")]
            listed += [os.path.normpath(page.parent.relative_to(DOCS) / entry) for entry in entries]

    assert sorted(listed) == sorted(str(page.relative_to(DOCS).with_suffix("")) for page in PAGES)


def test_the_tests_that_pages_name_are_there() -> None:
    """Each ``tests/…`` of the texts is a file or a directory."""
    named = {path for page in TEXTS for path in re.findall(r"``(tests/[\w/.]+)", page.read_text())}

    assert named
    assert [path for path in sorted(named) if not (PROJECT / path).exists()] == []


def test_make_knows_the_commands() -> None:
    """Each ``make …`` of the texts is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    named = {
        word
        for page in TEXTS
        for words in re.findall(r"(?:\$ |``)make ((?:[a-z]+ ?)+)", page.read_text())
        for word in words.split()
    }

    assert {"demo", "test"} <= named <= targets


def test_links_of_the_readme_lead_somewhere() -> None:
    """Relative links name files of the project."""
    links = re.findall(r"<((?!https?:)[^<>\s]+)>`_", (PROJECT / "README.rst").read_text())

    assert links
    assert [link for link in links if not (PROJECT / link).is_file()] == []


def test_versions_are_those_of_the_metadata() -> None:
    """What the README and the changelog say of versions is what setup.cfg says."""
    options, classifiers = read_setup()["options"], read_setup()["metadata"]["classifiers"]
    [python] = re.findall(r">=(.+)", options["python_requires"])
    [django] = re.findall(r"^django>=(.+)$", options["install_requires"], re.MULTILINE)
    pythons = sorted(re.findall(r"Python :: (3\.\d+)", classifiers), key=lambda version: int(version[2:]))
    djangos = sorted(re.findall(r"Django :: (\d\.\d)", classifiers))
    changelog = (DOCS / "changelog.rst").read_text()

    assert f"Python {python} or later and Django {django} or later" in (PROJECT / "README.rst").read_text()
    assert f"Python {python} or later" in (PROJECT / "CONTRIBUTING.rst").read_text()
    assert f"Python {pythons[0]} to {pythons[-1]}, Django {djangos[0]} to {djangos[-1]}" in changelog
    assert re.findall(r"^(\d+\.\d+\.\d+) \(", changelog, re.MULTILINE)[0] == djwebhooks.__version__


# -- the quickstart ----------------------------------------------------------------------------------------------------

QUICKSTART = read_blocks(DOCS / "quickstart.rst")


class Reader:
    """Does in a directory what the quickstart says, on another port and with another Redis."""

    def __init__(self, directory: Path, redis: str = "") -> None:
        self.directory = directory
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.replacements = {"9000": str(port), "redis://localhost:6379/0": redis}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("DJ")}
        self.environment = {**inherited, "PYTHONPATH": str(PROJECT)}

    def write(self, block: Block) -> None:
        """Write a block into the file of its caption; settings are added to what is there."""
        with (self.directory / block.caption).open("a") as file:
            file.write(f"\n{self.replace(block.text)}")

    def run(self, line: str) -> None:
        """Run a line of a console, and remember the secret that it shows."""
        command, _, stdin = line.partition(" < ")
        code = (self.directory / stdin).read_text() if stdin else ""
        done = subprocess.run(
            self.arguments(command),
            cwd=self.directory,
            env=self.environment,
            input=code,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

        assert done.returncode == 0, f"{line}\n{done.stdout}"

        for secret in re.findall(r"^whsec_\S+$", done.stdout, re.MULTILINE):
            self.replacements["whsec_…"] = secret

    def start(self, line: str) -> subprocess.Popen[str]:
        """Run a line that goes on, in a second terminal, until it says its first word."""
        arguments = self.arguments(line)
        process = subprocess.Popen(arguments, cwd=self.directory, env=self.environment, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None

        assert process.stdout.readline().startswith("Listening on")

        return process

    def arguments(self, command: str) -> list[str]:
        words = shlex.split(self.replace(command))
        if words[0] == "django-admin":
            words[:1] = ["python", "-m", "django"]
        if "rqworker" in words:
            words.append("--burst")
        return [sys.executable, *words[1:]]

    def replace(self, text: str) -> str:
        for old, new in self.replacements.items():
            text = text.replace(old, new)
        return text


def read_lines(blocks: list[Block]) -> list[str]:
    """The commands of the console blocks, but for what is installed already."""
    lines = [line for block in blocks if block.language == "console" for line in block.text.splitlines()]
    return [line[2:] for line in lines if line.startswith("$ ") and not line.startswith("$ pip install")]


def follow(reader: Reader, blocks: list[Block], lines: list[str]) -> str:
    """Write the files, run the lines, and return what the receiver has shown."""
    startproject, *rest = lines
    reader.run(startproject)
    for block in blocks:
        if block.caption:
            reader.write(block)
    with ExitStack() as stack:
        for line in rest:
            if "webhooks listen" in line:
                receiver = stack.enter_context(reader.start(line))
                stack.callback(receiver.kill)
            else:
                reader.run(line)
        receiver.terminate()
        shown, _ = receiver.communicate(timeout=PATIENCE)
    return shown


def blur(shown: str) -> str:
    """What a receiver shows, without what differs each time."""
    shown = re.sub(r"\d\d:\d\d:\d\d", "TIME", shown)
    return re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "ID", re.sub(r"\d{4}-\d\d-\d\dTTIME(\.\d+)?Z", "MOMENT", shown))


def split_quickstart() -> tuple[list[Block], list[Block]]:
    """The blocks without a broker, and those of the section about RQ."""
    settings = [index for index, block in enumerate(QUICKSTART) if block.caption == "mysite/settings.py"]
    return QUICKSTART[: settings[1]], QUICKSTART[settings[1] :]


def read_expected() -> str:
    """What the quickstart says that the receiver shows."""
    [text] = [block.text for block in QUICKSTART if block.language == "text"]
    return blur(textwrap.dedent(text)).strip()


@pytest.mark.django_db
def test_what_the_quickstart_fires_can_be_fired_again(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever runs the block a second time gets the same secret and another event."""
    [hook] = [block.text for block in QUICKSTART if block.caption == "mysite/webhooks.py"]
    [trial] = [block.text for block in QUICKSTART if block.caption == "try_it.py"]
    before = dict(sys.modules)
    sys.modules |= {"mysite": ModuleType("mysite"), "mysite.webhooks": ModuleType("mysite.webhooks")}
    exec(hook, vars(sys.modules["mysite.webhooks"]))
    for _ in range(2):
        exec(trial, {})
    for name in sys.modules.keys() - before:
        del sys.modules[name]

    first, second = capsys.readouterr().out.split()
    assert first == second
    assert len(fired("user.update")) == 2


def test_the_quickstart_runs_without_a_broker(tmp_path: Path) -> None:
    """Its blocks, done one after the other in a fresh project, show what the page says."""
    blocks, _ = split_quickstart()

    shown = follow(Reader(tmp_path), blocks, read_lines(blocks))

    assert blur(shown).strip() == read_expected()


def test_the_quickstart_runs_with_rq(tmp_path: Path, redis: str) -> None:
    """With the settings for RQ in place of the others, django-rq's own worker does the same."""
    without, with_rq = split_quickstart()
    lines = [line for line in read_lines(without + with_rq) if "webhooks work" not in line]

    shown = follow(Reader(tmp_path, redis), QUICKSTART, lines)

    assert blur(shown).strip() == read_expected()


def test_the_readers_own_code_has_ten_lines() -> None:
    """The quickstart promises ten lines: the hook, and firing it."""
    own = [block.text for block in QUICKSTART if block.caption in ("mysite/webhooks.py", "try_it.py")]
    lines = [line for text in own for line in text.splitlines() if line.strip()]

    assert len(lines) == 10
