# SPDX-License-Identifier: MIT
"""Every Python block of the README and the docs is run, and its output is compared with the page."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.request import urlopen

import gevent
import pytest

from aemp_gevent.testing import wait_until
from soak.web import Gunicorn
from tests.support import preloaded
from tests.support.networking import free_address

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

_BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.DOTALL | re.MULTILINE)

# Programs of several processes: a block that begins with its file name. Each has a test of its own below.
IN_SEVERAL_PROCESSES = {
    *("shout.py", "counter.py", "book.py", "conftest.py", "test_faults.py", "encrypted.py", "app.py", "hello.py"),
    *("live.py", "talk.py", "announce.py", "limited.py", "weather.py", "settings.py", "receivers.py", "lookups.py"),
    "shop.py",  # see test_console_pages.py
    *("locustfile.py", "calls.py"),  # see test_locust.py
}


def blocks():
    for page in PAGES:
        for number, match in enumerate(_BLOCK.finditer(page.read_text()), 1):
            yield page.relative_to(ROOT), number, match.group(1), match.group(2)


def name_of(source):
    match = re.match(r"# (\w+\.py)\n", source)
    return match.group(1) if match else None


def program(name):
    return next(source for _, _, source, _ in blocks() if name_of(source) == name)


def start(processes, *args, cwd, stderr=None):
    process = preloaded.Popen([sys.executable, *args], cwd=cwd, stdout=subprocess.PIPE, stderr=stderr, text=True)
    processes.append(process)
    return process


@pytest.fixture
def processes():
    """A list whose processes are killed in the end."""
    started: list[subprocess.Popen] = []
    yield started
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "output"),
    [
        pytest.param(source, output, id=f"{page}-{number}")
        for page, number, source, output in blocks()
        if name_of(source) is None
    ],
)
def test_snippet_prints_what_the_page_says(source, output, tmp_path):
    if sys.version_info < (3, 10) and "match " in source:
        pytest.skip("needs match")
    run = subprocess.run if "monkey" in source else preloaded.run  # patching comes before all other imports
    done = run([sys.executable, "-c", source], cwd=tmp_path, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (output or "")


def test_every_named_program_has_a_test_below():
    assert {name_of(source) for _, _, source, _ in blocks()} - {None} == IN_SEVERAL_PROCESSES


@pytest.mark.slow
def test_readmes_post_to_one_worker_reaches_the_readers_of_all(scratch):
    pytest.importorskip("gunicorn")
    (scratch / "app.py").write_text(program("live.py"))
    (scratch / "gunicorn.conf.py").write_text("from aemp_gevent.contrib.gunicorn import *")
    received: dict[int, list[bytes]] = {}

    def read(number, answer):
        received[number] = []
        while line := answer.readline():
            received[number].append(line)

    def workers():
        return {lines[0] for lines in received.values() if lines}

    with Gunicorn(scratch, scratch, workers=2) as server:
        readers = []

        def reaches_two_workers():
            connection = server.connect()
            connection.request("GET", "/")
            readers.append((gevent.spawn(read, len(readers), connection.getresponse()), connection))
            return len(workers()) == 2

        wait_until(reaches_two_workers, within=20, show=lambda: received)

        def everybody_was_sent_to():
            connection = server.connect()
            connection.request("POST", "/", "hello, all of you")
            answer = connection.getresponse().read()
            connection.close()
            return answer == b"sent to %d\n" % len(readers)

        wait_until(everybody_was_sent_to, within=20, show=lambda: received)
        wait_until(
            lambda: all(b"data: hello, all of you\n" in lines for lines in received.values()),
            within=20,
            show=lambda: received,
        )
        for reader, connection in readers:
            reader.kill()
            connection.close()


TALKING = """
from gevent import monkey
monkey.patch_all()
import os, subprocess, sys
import socketio
from aemp_gevent.testing import wait_until

def client():
    made = socketio.Client(reconnection=False)
    made.heard = []
    made.on("said", made.heard.append)
    made.connect(sys.argv[1], transports=["websocket"], wait_timeout=20)
    made.call("enter", "kitchen", timeout=20)
    return made

clients = [client() for _ in range(6)]       # some are at one worker, some at another
clients[0].emit("say", ("kitchen", "hello"))
subprocess.run([sys.executable, "announce.py"], check=True, timeout=20)
for each in clients:
    wait_until(lambda: len(each.heard) == 2, within=20, show=lambda: each.heard)
    assert sorted(each.heard) == ["The backup is done.", "hello"]
"""


@pytest.mark.slow
def test_what_a_client_of_socketio_and_a_script_say_is_heard_at_all_workers(scratch):
    pytest.importorskip("flask_socketio")
    (scratch / "app.py").write_text(program("talk.py"))
    (scratch / "announce.py").write_text(program("announce.py"))
    (scratch / "gunicorn.conf.py").write_text("from aemp_gevent.contrib.gunicorn import *")
    with Gunicorn(scratch, scratch, "-n", "talk", workers=2, address=free_address()) as server:
        command = [sys.executable, "-c", TALKING, f"http://{server.address}"]
        done = subprocess.run(command, cwd=scratch, env=server.environ, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr + server.log


WEATHER = """
from aemp_gevent import grp_reg, port, rcv, snd
import weather
for degrees in (21.5, 22.5):
    station = port()
    rcv(station, "report", lambda reply, degrees=degrees: snd(reply, degrees))
    grp_reg("stations", station)
print(sorted(weather.app.test_client().get("/degrees").json))
"""


@pytest.mark.slow
def test_request_of_flask_gets_the_answers_of_all_stations(tmp_path):
    pytest.importorskip("flask")
    (tmp_path / "weather.py").write_text(program("weather.py"))
    done = subprocess.run([sys.executable, "-c", WEATHER], cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert done.stdout == "[21.5, 22.5]\n", done.stderr


LIMITED = """
import limited
limited.app.add_url_rule("/", view_func=lambda: "here you are")
answers = [limited.app.test_client().get("/") for _ in range(11)]
print([answer.status_code for answer in answers[-2:]], answers[-1].text, 0 < int(answers[-1].headers["Retry-After"]))
"""


def test_requests_that_are_too_many_are_answered_with_429(tmp_path):
    pytest.importorskip("flask")
    source = program("limited.py")
    assert "per=1)" in source
    (tmp_path / "limited.py").write_text(source.replace("per=1)", "per=100)"))  # however slow this machine is
    done = subprocess.run([sys.executable, "-c", LIMITED], cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert done.stdout == "[200, 429] slow down\n True\n", done.stderr


PRODUCTS = """
import settings
from django.conf import settings as of_django
of_django.configure(
    INSTALLED_APPS=[*settings.INSTALLED_APPS, "shop"], AEMP_URL=None, DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
)
import django
django.setup()
import receivers, lookups
from django.core.cache import cache
from django.db import connection
from aemp_gevent.contrib.django import invalidate
from shop.models import Product
with connection.schema_editor() as editor:
    editor.create_model(Product)
product = Product.objects.create(price=5)
cache.set_many({f"product:{product.pk}": 5, "other": 6})
product.save()
print(cache.get_many([f"product:{product.pk}", "other"]))
lookups.read_from_database = lambda currency: len(read)
read = []
lookups.rates("EUR")
read.append(1)
invalidate("other")
print(lookups.rates("EUR"))
invalidate("rates")
print(lookups.rates("EUR"))
"""


@pytest.mark.slow
def test_what_django_caches_is_deleted_when_it_changes(tmp_path):
    pytest.importorskip("django")
    (tmp_path / "shop").mkdir()
    model = "class Product(models.Model):\n    price = models.IntegerField()\n"
    (tmp_path / "shop" / "models.py").write_text(f"from django.db import models\n{model}")
    for name in ("settings.py", "receivers.py", "lookups.py"):
        (tmp_path / name).write_text(program(name))
    done = subprocess.run([sys.executable, "-c", PRODUCTS], cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert done.stdout == "{'other': 6}\n0\n1\n", done.stderr


@pytest.mark.slow
def test_readme_example_answers_and_notices_the_kill(processes, tmp_path):
    (tmp_path / "shout.py").write_text(program("shout.py"))
    server = start(processes, "shout.py", cwd=tmp_path)
    shouter = server.stdout.readline().strip()
    client = start(processes, "-u", "shout.py", shouter, cwd=tmp_path, stderr=subprocess.PIPE)
    assert client.stdout.readline() == "('HELLO',)\n"
    server.kill()
    assert client.stdout.readline().startswith("('it died:', 'transport_error', ")
    client.send_signal(signal.SIGINT)
    out, errors = client.communicate(timeout=20)
    assert (out, client.returncode) == ("", 128 + signal.SIGINT)
    assert "Traceback" not in errors


RUNNABLE = [
    *((name_of(source), source) for _, _, source, _ in blocks() if name_of(source)),
    *((path.name, path.read_text()) for path in sorted((ROOT / "examples").glob("**/*.py"))),
    *((path.name, path.read_text()) for path in sorted((ROOT / "docs" / "howto" / "invoicing").glob("*.py"))),
]


def test_every_program_that_is_shown_ends_on_ctrl_c_without_a_traceback():
    """Except those that gunicorn, pytest or Locust starts, which handle Ctrl-C themselves."""
    starts = re.compile(r"initialise_node\(|join_host\(|attach\(")
    others = re.compile(r"app\.py|live\.py|calls\.py|test_\w+\.py")
    nodes = [(name, source) for name, source in RUNNABLE if starts.search(source) and not others.fullmatch(name)]
    assert len(nodes) > 12
    cares = re.compile(r"shutdown_on_signal\(\)|signal_handler\(|except KeyboardInterrupt")
    assert [name for name, source in nodes if not cares.search(source)] == []


@pytest.mark.slow
def test_tutorials_counter_ends_on_ctrl_c_without_a_traceback(processes, tmp_path):
    (tmp_path / "counter.py").write_text(program("counter.py"))
    node = start(processes, "counter.py", cwd=tmp_path, stderr=subprocess.STDOUT)
    assert node.stdout.readline().startswith("127.0.0.1:")
    node.send_signal(signal.SIGINT)
    assert node.communicate(timeout=20)[0] == ""
    assert node.returncode == 128 + signal.SIGINT


@pytest.mark.slow
@pytest.mark.parametrize("counters", [1, 3])
def test_tutorial_counts_words_across_processes(processes, tmp_path, counters):
    for name in ("counter.py", "book.py"):
        (tmp_path / name).write_text(program(name))
    nodes = [start(processes, "counter.py", cwd=tmp_path).stdout.readline().strip() for _ in range(counters)]
    book = start(processes, "book.py", *nodes, cwd=tmp_path)
    assert book.communicate(timeout=20)[0] == "18 words\n"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
@pytest.mark.parametrize("pem", ["shared.pem", "node.pem"])
def test_certificates_made_as_the_page_says_encrypt_a_link(processes, tmp_path, pem):
    page = (ROOT / "docs" / "howto" / "encrypt-links.md").read_text()
    # The page's node has a name, and the program's an address.
    commands = [
        line[2:].replace("aemp:backend", "aemp:127.0.0.1:*") for line in re.findall(r"^\$ .*", page, re.MULTILINE)
    ]
    subprocess.run(["sh", "-ec", "\n".join(commands)], cwd=tmp_path, check=True, capture_output=True, timeout=60)
    (tmp_path / "encrypted.py").write_text(program("encrypted.py"))
    shouter = start(processes, "encrypted.py", pem, cwd=tmp_path).stdout.readline().strip()
    client = start(processes, "encrypted.py", pem, shouter, cwd=tmp_path)
    assert client.communicate(timeout=30)[0] == "HELLO\n"


@pytest.mark.slow
def test_faults_are_as_the_page_says(tmp_path):
    for name in ("conftest.py", "test_faults.py"):
        (tmp_path / name).write_text(program(name))
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = preloaded.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout


@pytest.mark.slow
def test_tutorial_says_so_when_a_node_does_not_exist(processes, tmp_path):
    (tmp_path / "book.py").write_text(program("book.py"))
    book = start(processes, "book.py", "127.0.0.1:1", cwd=tmp_path)
    page = (ROOT / "docs" / "tutorial" / "index.md").read_text()
    assert book.communicate(timeout=20)[0] in page


@pytest.fixture
def scratch(monkeypatch):
    """Where processes of a host meet; its path must be short, as sockets are in it."""
    with tempfile.TemporaryDirectory() as path:
        monkeypatch.setenv("TMPDIR", path)
        yield Path(path)


@pytest.mark.slow
def test_pywsgi_servers_know_of_each_other_and_end_in_order(processes, scratch):
    (scratch / "hello.py").write_text(program("hello.py"))
    ports = [free_address().rpartition(":")[2] for _ in range(2)]
    servers = [start(processes, "hello.py", port, cwd=scratch) for port in ports]

    def answers():
        found = []
        for port in ports:
            try:
                with urlopen(f"http://127.0.0.1:{port}", timeout=10) as answer:
                    found.append(answer.read())
            except OSError:  # it does not listen yet
                found.append(None)
        return found

    wait_until(lambda: answers() == [b"2 of us\n"] * 2, within=20, show=answers)
    servers[0].terminate()
    assert servers[0].wait(20) == 0
    ports.pop(0)
    wait_until(lambda: answers() == [b"1 of us\n"], within=20, show=answers)


@pytest.mark.slow
def test_gunicorns_workers_know_of_each_other(scratch):
    pytest.importorskip("gunicorn")
    (scratch / "app.py").write_text(program("app.py"))
    line = "from aemp_gevent.contrib.gunicorn import *"
    assert any(source.strip() == line for page, _, source, _ in blocks() if page.name == "gunicorn-workers.md")
    (scratch / "gunicorn.conf.py").write_text(line)
    with Gunicorn(scratch, scratch, "--preload") as server:
        for _ in range(10):
            connection = server.connect()
            connection.request("GET", "/")
            assert connection.getresponse().read().decode().splitlines() == sorted(server.workers.values())
            connection.close()
