# SPDX-License-Identifier: MIT
"""Locust's own tests of its masters and workers: over links, those pass that pass over ZeroMQ.

They come with the source distribution, which is downloaded. Many allow processes little time, and fail where a machine
is busy. So each is tried again; and one that fails over links must fail over ZeroMQ as well.

All of them take ten minutes: ``AEMP_TEST_LOCUST=1 make test-thorough ARGS=tests/contrib/test_locusts_tests.py``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
from importlib.util import find_spec
from pathlib import Path
from time import monotonic

import pytest

from tests.support.native import aside
from tests.support.networking import ROOT, SECRET, free_address
from tests.support.thoroughness import THOROUGH, sampled

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("locust") is None, reason="Locust is not installed: pip install locust"),
]

RELEASE = "2.29.1"
"""The last one whose source distribution has the tests."""

ABOUT_ZEROMQ = [
    "test_zmqrpc.ZMQRPC_tests.test_constructor",  # asks the socket for its options
    "test_zmqrpc.ZMQRPC_tests.test_client_retry",  # closes the socket behind Locust's back
]
"""They use the attribute ``socket`` of an end, which is ZeroMQ's."""

TESTS = [
    *(f"test_zmqrpc.ZMQRPC_tests.{name}" for name in ("test_client_send", "test_client_recv", "test_rpc_error")),
    *(
        f"test_main.DistributedIntegrationTests.{name}"
        for name in (
            "test_distributed",
            "test_distributed_events",
            "test_distributed_report_timeout_expired",
            "test_distributed_tags",
            "test_distributed_with_locustfile_distribution_not_plain_filename",
            "test_expect_workers",
            "test_json_schema",
            "test_locustfile_distribution",
            "test_locustfile_distribution_with_workers_started_first",
            "test_processes",
            "test_processes_autodetect",
            "test_processes_ctrl_c",
            "test_processes_error_doesnt_blow_up_completely",
            "test_processes_separate_worker",
            "test_processes_workers_quit_unexpected",
            "test_worker_indexes",
            "test_workers_shut_down_if_master_is_gone",
        )
    ),
    *(
        f"test_runners.TestMasterWorkerRunners.{name}"
        for name in (
            "test_can_call_stop_endpoint_if_currently_swarming",
            "test_distributed_integration_run",
            "test_distributed_rebalanced_integration_run",
            "test_distributed_run_with_custom_args",
            "test_distributed_shape",
            "test_distributed_shape_statuses_transition",
            "test_distributed_shape_stop_and_restart",
            "test_distributed_stop_with_stopping_state",
            "test_long_running_test_start_is_run_to_completion_on_worker",
            "test_spawning_complete_and_test_stop_event",
            "test_swarm_endpoint_is_non_blocking",
            "test_target_user_count_is_set_before_ramp_up",
        )
    ),
]

PROGRAM = Path(__file__).with_name("locusts_test.py")

SECONDS = 60
"""For one attempt. Most take less than ten."""

SECONDS_FOR_ALL = 150
"""After that, there is no further attempt."""


@pytest.fixture(scope="session")
def source() -> Path:
    """The folder of Locust's source distribution, downloaded once by each user of this machine."""
    cache = Path(tempfile.gettempdir()) / f"aemp-test-locust-{os.getuid()}"
    unpacked = cache / f"locust-{RELEASE}"
    if not unpacked.exists():
        if not THOROUGH:
            pytest.skip("Locust's source distribution is not here yet: make test-thorough downloads it")
        cache.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            wanted = ["--no-deps", "--no-binary", "locust", "--dest", folder, f"locust=={RELEASE}"]
            command = [sys.executable, "-m", "pip", "download", "--quiet", *wanted]
            try:
                done = aside(lambda: subprocess.run(command, capture_output=True, text=True, timeout=SECONDS))
                trouble = done.stderr.strip()[-300:]
            except subprocess.TimeoutExpired as error:
                trouble = str(error)
            archives = list(Path(folder).glob("*.tar.gz"))
            if not archives:
                pytest.skip(f"Locust's source distribution cannot be downloaded here: {trouble}")
            with tarfile.open(archives[0]) as archive:
                archive.extraction_filter = getattr(tarfile, "data_filter", None)  # of newer Pythons
                archive.extractall(folder)
            with contextlib.suppress(OSError):  # another process was faster
                (Path(folder) / unpacked.name).rename(unpacked)
    return unpacked


@pytest.fixture
def commands(tmp_path: Path) -> Path:
    """A folder for each kind of ends, with the command ``locust`` as Locust's tests start it."""
    for kind, module in (("zmq", "locust.main"), ("links", "aemp_gevent.contrib.locust")):
        command = tmp_path / kind / "locust"
        command.parent.mkdir()
        command.write_text(f"#!{sys.executable}\nfrom {module} import main\nmain()\n")
        command.chmod(0o755)
    return tmp_path


class Attempt:
    """One run of a test of Locust's."""

    def __init__(self, kind: str, test: str, source: Path, commands: Path) -> None:
        port = free_address().rpartition(":")[2]
        own = {
            "PATH": f"{commands / kind}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": f"{source}{os.pathsep}{ROOT}",
            "AEMP_SECRET": SECRET,
            "LOCUST_MASTER_BIND_PORT": port,
            "LOCUST_MASTER_NODE_PORT": port,
        }
        self._child = subprocess.Popen(
            [sys.executable, str(PROGRAM), kind, f"locust.test.{test}"],
            cwd=commands,
            env={**os.environ, **own},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def failure(self) -> str:
        """Wait for the end, and return what the test printed if it failed; ``""`` if it passed."""
        try:
            printed = aside(lambda: self._child.communicate(timeout=SECONDS)[0])
        except subprocess.TimeoutExpired:
            printed = "it takes too long"
        self.end()
        return "" if self._child.returncode == 0 else printed or "it failed"

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()


@pytest.mark.parametrize("test", sampled(TESTS, 2, len(TESTS) if os.environ.get("AEMP_TEST_LOCUST") else 4))
def test_what_passes_over_zeromq_passes_over_links(test: str, source: Path, commands: Path) -> None:
    until = monotonic() + SECONDS_FOR_ALL
    passes_over_zeromq = False
    while True:
        failure = Attempt("links", test, source, commands).failure()
        if not failure:
            return
        passes_over_zeromq = passes_over_zeromq or not Attempt("zmq", test, source, commands).failure()
        if monotonic() > until - SECONDS:
            break
    if not passes_over_zeromq:
        pytest.skip(f"it does not pass over ZeroMQ either: {failure[-500:]}")
    pytest.fail(failure)


@pytest.mark.parametrize("test", ABOUT_ZEROMQ)
def test_only_tests_of_the_socket_itself_do_not_pass(test: str, source: Path, commands: Path) -> None:
    assert "has no attribute 'socket'" in Attempt("links", test, source, commands).failure()
