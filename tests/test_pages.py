"""The code of the pages runs: each block in its turn, in one module for each page."""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import StringIO
from types import ModuleType
from typing import Any

import pytest
from django.conf import LazySettings
from django.core.management import call_command

from djwebhooks.models import Attempt, Delivery, WebhookTarget
from djwebhooks.testing.receiver import Receiver
from tests.builders import make_user
from tests.test_docs import DOCS, Block, read_blocks

pytestmark = pytest.mark.django_db


@dataclass
class Page:
    """A page whose Python runs in a module of its own, block by block; *replaced* are texts that are other ones here."""

    name: str
    module: ModuleType
    replaced: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.blocks = [block for block in read_blocks(DOCS / f"{self.name}.rst") if block.language == "python"]

    def run(self, *, until: str = "") -> dict[str, Any]:
        """Run the next blocks, all or up to the one that contains *until*; return the names that there are now."""
        while self.blocks:
            block = self.blocks.pop(0)
            self.run_block(block)
            if until and until in block.text:
                break
        return vars(self.module)

    def run_block(self, block: Block) -> None:
        text = block.text
        for old, new in self.replaced.items():
            text = text.replace(old, new)
        module = self.module
        if "/" in block.caption:
            module = ModuleType(block.caption.removesuffix(".py").replace("/", "."))
            sys.modules[module.__name__.partition(".")[0]] = ModuleType(module.__name__.partition(".")[0])
            sys.modules[module.__name__] = module
        exec(compile(text, str(block.page), "exec"), vars(module))
        if module is not self.module:
            vars(self.module).update({name: value for name, value in vars(module).items() if not name.startswith("__")})


@pytest.fixture
def read() -> Iterator[Callable[..., Page]]:
    """A function that reads a page; keywords are names that its code takes for granted."""
    before = set(sys.modules)

    def read(name: str, replaced: dict[str, str] | None = None, **names: Any) -> Page:
        module = ModuleType(f"page_{name.rpartition('/')[2]}")
        sys.modules[module.__name__] = module
        vars(module).update(names)
        return Page(name, module, replaced or {})

    yield read
    for name in set(sys.modules) - before:
        if name.startswith(("page_", "jobs")):
            del sys.modules[name]


@pytest.mark.django_db(transaction=True)
def test_one_can_send_from_ones_own_process(read: Callable[..., Page], settings: LazySettings, receiver: Receiver) -> None:
    """At once, in a thread, in one pass, by the command, and straight to URLs."""
    user = make_user()
    page = read("how-to/inside", {"https://example.com/hook": receiver.url, "https://example.com": receiver.url}, user=user)

    settings.DJWEBHOOKS_ENGINE = page.run(until="DJWEBHOOKS_ENGINE")["DJWEBHOOKS_ENGINE"]
    names = page.run(until="results_of")
    delivery = Delivery.objects.get()
    assert names["result"] == {
        "job": 17,
        "state": "done",
        "attempt": 1,
        "hash": str(delivery.event.uid),
        "response": "",
        "status_code": 200,
        "url": receiver.url,
    }

    settings.DJWEBHOOKS_ENGINE = page.run(until="DJWEBHOOKS_ENGINE")["DJWEBHOOKS_ENGINE"]
    page.run(until="worker.start()")
    work = page.run(until="work(burst=True)")
    assert Attempt.objects.count() == 3
    assert work["count"] >= 1

    page.run(until="urls=")
    uid = WebhookTarget.objects.get(target_url=f"{receiver.url}/one").uid
    call_command("webhooks", "work", "--burst", "--target", str(uid), stdout=StringIO())
    assert sorted(json.loads(request.body)["data"]["job"] for request in receiver.requests[3:]) == [20, 21]
    call_command("webhooks", "work", "--burst", stdout=StringIO())
    assert sorted(json.loads(request.body)["data"]["job"] for request in receiver.requests[5:]) == [21, 22]

    page.run()
    assert not WebhookTarget.objects.get(target_url=receiver.url).subscriptions.exists()
