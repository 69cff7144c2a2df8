# SPDX-License-Identifier: MIT
"""Keep all texts alike that say how to install the package: from a clone, until it is on a package index.

When it is on one, set :data:`ON_INDEX` to True and run this, then ``docs/command_reference.py``. When the repository
has a public address, set :data:`REPOSITORY` to it: there is none yet, so the metadata link only to the program whose
protocol this is. Tests fail until everything agrees.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ON_INDEX = False
REPOSITORY: str | None = None
"""The address of the public repository, from which the project's URLs are made."""

ROOT = Path(__file__).parent.parent


class Text(NamedTuple):
    """What a file says about installing.

    Attributes:
        file: The file's path in the repository.
        clone: The text while the package is not on an index.
        index: The text afterwards.
    """

    file: str
    clone: str
    index: str


TEXTS = (
    Text(
        "README.md",
        "You need Python 3.10 or newer, and a clone of this repository.\n"
        "The package is not on an index yet, so start in the clone:\n",
        "You need Python 3.10 or newer:\n",
    ),
    Text(
        "README.md",
        "$ pip install '.[cli,web]'                     #",
        "$ pip install 'aemp-gevent[cli,web]'           #",
    ),
    Text(
        "aemp_command/__init__.py",
        "run pip install '.[cli]' in a clone of aemp_gevent",
        "run pip install 'aemp-gevent[cli]'",
    ),
    Text(
        "docs/command_reference.py",
        "run `pip install '.[cli]'` in a clone of aemp_gevent",
        "run `pip install 'aemp-gevent[cli]'`",
    ),
    Text(
        "docs/howto/set-nodes-up.md",
        "run `pip install '.[cli]'` in a clone of the repository",
        "run `pip install 'aemp-gevent[cli]'`",
    ),
    Text(
        "docs/howto/talk-to-perl.md",
        "Install the extra `cbor` (`pip install '.[cbor]'` in a clone)",
        "Install the extra `cbor` (`pip install 'aemp-gevent[cbor]'`)",
    ),
    Text(
        "docs/howto/run-locust.md",
        "Install Locust with the extra: `pip install '.[cli,locust]'` in a clone",
        "Install Locust with the extra: `pip install 'aemp-gevent[cli,locust]'`",
    ),
    Text(
        "docs/reference/framings.md",
        "the extra: `pip install '.[cbor]'` in a clone",
        "the extra: `pip install 'aemp-gevent[cbor]'`",
    ),
    Text(
        "docs/howto/flask-socketio-without-redis.md",
        "$ pip install '.[flask-socketio,web]' ",
        "$ pip install 'aemp-gevent[flask-socketio,web]' ",
    ),
    Text(
        "docs/howto/deploy/Dockerfile",
        "# The package is not on an index yet: build this beside a clone of it.\n"
        "COPY aemp_gevent /src/aemp_gevent\n"
        "RUN pip install --no-cache-dir '/src/aemp_gevent[cli]'\n",
        "RUN pip install --no-cache-dir 'aemp-gevent[cli]'\n",
    ),
    *(
        Text(f"examples/{name}/README.md", "pip install '.[web]' && ", "pip install 'aemp-gevent[web]' && ")
        for name in ("flask_chat", "job_backend", "live_counter", "lost_counts", "rate_limited_api")
    ),
    Text(
        "examples/socketio_chat/README.md",
        "pip install '.[flask-socketio,web]' && ",
        "pip install 'aemp-gevent[flask-socketio,web]' && ",
    ),
)

URLS = re.compile(r"^project_urls =\n(?:    .*\n)+", re.MULTILINE)


def project_urls() -> str:
    """Return the project's URLs as they stand in ``setup.cfg``."""
    urls = {"Protocol (AnyEvent::MP)": "https://metacpan.org/dist/AnyEvent-MP"}
    if REPOSITORY is not None:
        urls = {
            "Source": REPOSITORY,
            "Documentation": f"{REPOSITORY}/blob/main/docs/index.md",
            "Changelog": f"{REPOSITORY}/blob/main/CHANGELOG.md",
            **urls,
        }
    return "project_urls =\n" + "".join(f"    {name} = {url}\n" for name, url in urls.items())


def updated(file: str, content: str) -> str:
    """Return a file's content with its texts as they are to be."""
    for text in TEXTS:
        if text.file == file:
            wanted, other = (text.index, text.clone) if ON_INDEX else (text.clone, text.index)
            content = content.replace(other, wanted)
    return URLS.sub(lambda _found: project_urls(), content) if file == "setup.cfg" else content


if __name__ == "__main__":
    for name in {text.file for text in TEXTS} | {"setup.cfg"}:
        path = ROOT / name
        path.write_text(updated(name, path.read_text()))
