# SPDX-License-Identifier: MIT
"""Write the tables that begin the reference and the how-to pages, and the programs on the landing page.

Readers on a code host see the Markdown without what Sphinx adds, so the tables are written into it. A test checks
that they are up to date, and that no name and no page is missing.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import aemp_gevent
import aemp_gevent.errors

DOCS = Path(__file__).parent
README = DOCS.parent / "README.md"
API = DOCS / "reference" / "api.md"
HOWTO = DOCS / "howto" / "index.md"
LANDING = DOCS / "index.md"

BEGIN = "<!-- from here on written by docs/indexes.py -->\n"
END = "<!-- to here -->\n"

NAMES = {
    "What most programs need": (
        "initialise_node port port_async rcv receive snd call serve mon kil attach SELF NODE shutdown"
    ),
    "More of AnyEvent::MP": (
        "after cal configure mon_guard node_of peval psub reg resolve_node spawn spawnable any_ DONE Monitor Timer"
    ),
    "More of Coro::MP": "actor get get_cond peval_async rcv_async syncal Attachment",
    "The directory, and groups of ports": (
        "db_set db_del db_reg db_family db_keys db_values db_mon db_wait grp_reg grp_get grp_mon grp_snd"
        " DirectoryEntry DirectoryMonitor"
    ),
    "Beyond AnyEvent::MP": "call_async time_left snd_nowait flush shutdown_on_signal is_compiled",
    "Nodes and links": (
        "Node default_node Settings PeerRule mon_nodes up_nodes node_is_up node_state NodeState NodeUp NodeDown"
        " NodeBlocked NodeUnblocked NodeGuard"
    ),
}
"""The public names without the exceptions, in the order in which they are shown."""

VALUES = {
    "DONE": "What a handler returns to be removed.",
    "any_": "In a pattern: matches any one element.",
    "is_compiled": "Whether the [compiled modules](../explanation/design.md#one-source-two-builds) are used.",
    "default_node": "The node that the module functions act on.",
}
"""The texts for names that have no docstring of their own."""

PAGES = {
    "Set nodes up": {
        "set-nodes-up": "write the settings of nodes with the command `aemp`",
        "configure-a-node": "let operators decide what kind of node a program is",
        "named-nodes": "give nodes names instead of addresses",
        "listen-elsewhere": "listen behind NAT, a proxy, or in a container",
        "reach-nodes-behind-nat": "reach processes that other nodes cannot dial",
        "encrypt-links": "use TLS, with or without a certificate authority",
        "keep-the-directory-in-etcd": "keep groups and entries in etcd",
        "run-in-production": "run nodes under systemd, Docker or Kubernetes, and watch them",
        "monitor-in-production": "show figures to Prometheus and Grafana, and get alerts",
        "watch-in-the-browser": "see nodes, links, ports and logs on a live page",
        "trace-a-request": "follow a request across nodes with OpenTelemetry, and in the logs",
        "look-into-a-network": "see what a running network does",
    },
    "Write programs": {
        "ask-a-port": "call a function of another port, and get its result or its error",
        "find-ports": "find ports on other nodes, send to groups of them, and share values",
        "run-code-elsewhere": "start functions on other nodes, and allow that here",
        "any-greenlet": "send and receive in greenlets that you have already",
        "send-from-threads": "send from native threads",
        "talk-to-perl": "exchange messages with Perl's AnyEvent::MP",
    },
    "Serve the web": {
        "gunicorn-workers": "let the workers of gunicorn talk to each other",
        "wsgi-servers": "make the processes of other WSGI servers nodes",
        "flask-and-django": "make processes of Flask and Django nodes, with ports for requests, and clear their caches",
        "flask-socketio-without-redis": "run Socket.IO behind several workers without a message queue",
        "instead-of-redis": "publish to all workers, without a broker beside them",
        "who-is-online": "see who is connected to any worker, and who comes and goes",
        "limit-rates": "limit how often something may happen on all workers together",
        "invalidate-caches": "share a cache between all workers, and invalidate it for all",
    },
    "Generate load": {
        "run-locust": "connect Locust's master and workers by links instead of ZeroMQ",
    },
    "Move from gevent's own tools": {
        "migrate-a-service": "move a whole service, step by step",
        "migrate-queues": "use a queue from other nodes",
        "migrate-pools": "run a pool's functions on other nodes",
        "replace-spawn-loops": "have loops started again when they die",
        "from-pykka": "turn Pykka's actors into servers",
        "from-nameko-and-eventlet": "move from eventlet to gevent, and services without a broker",
        "migrate-events-and-semaphores": "share events and semaphores between nodes",
    },
    "Test": {
        "test-with-faults": "test with real processes and broken connections, and let crashes fail tests",
        "simulate-a-network": "simulate a network that breaks, in one process",
    },
}
"""The how-to pages, and what you want to do when you open one."""


def sentence(name: str) -> str:
    """Return the first sentence of the docstring of a public name, as Markdown."""
    thing = getattr(aemp_gevent if name in aemp_gevent.__all__ else aemp_gevent.errors, name)
    text = VALUES.get(name) or (inspect.getdoc(thing) or "").splitlines()[0]
    text = re.sub(r":\w+:`([^`]+)`", r"`\1`", text).replace("``", "`")
    return re.sub(r"\. .*", ".", text).replace("|", "\\|")


def errors() -> tuple[list[str], list[str]]:
    """Return the names of the exceptions at the top level, and of those that are only in ``aemp_gevent.errors``."""
    every = sorted(
        name
        for name, thing in vars(aemp_gevent.errors).items()
        if inspect.isclass(thing) and issubclass(thing, BaseException) and thing.__module__ == "aemp_gevent.errors"
    )
    top = [name for name in every if name in aemp_gevent.__all__]
    return top, [name for name in every if name not in top]


def api_tables() -> str:
    """Return the tables of the public names."""
    lines: list[str] = []
    groups = {title: names.split() for title, names in NAMES.items()}
    top, others = errors()
    groups |= {"Errors that programs catch": top, "Errors that are in `aemp_gevent.errors` only": others}
    for title, names in groups.items():
        lines += [f"**{title}**", "", "| name | |", "| --- | --- |"]
        lines += [f"| `{name}` | {sentence(name)} |" for name in names]
        lines.append("")
    return "\n".join(lines)


def page_tables() -> str:
    """Return the tables of the how-to pages."""
    lines: list[str] = []
    for title, pages in PAGES.items():
        lines += [f"**{title}**", "", "| page | read it to |", "| --- | --- |"]
        for page, purpose in pages.items():
            heading = (DOCS / "howto" / f"{page}.md").read_text().splitlines()[0].lstrip("# ")
            lines.append(f"| [{heading}]({page}.md) | {purpose} |")
        lines.append("")
    return "\n".join(lines)


def program() -> str:
    """Return the README's sections with the first programs."""
    sections = re.compile(r"^## A live page in 15 lines\n.*?(?=^More programs)", re.DOTALL | re.MULTILINE)
    found = sections.search(README.read_text())
    assert found is not None
    return found[0].replace("](docs/", "](")


WRITTEN = {API: api_tables, HOWTO: page_tables, LANDING: program}


def updated(page: Path) -> str:
    """Return a page with an up-to-date part between the marks."""
    head, _, rest = page.read_text().partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n{WRITTEN[page]()}\n{END}{tail}"


if __name__ == "__main__":
    for written in WRITTEN:
        written.write_text(updated(written))
