# SPDX-License-Identifier: MIT
"""The server of :mod:`tests.support.preloaded`: imports the library, then forks a process for each request."""

# ruff: noqa: BLE001, SIM115, PTH100, PTH120, PTH123  # it stands in for the interpreter's own start, which knows no pathlib

import gc
import importlib
import io
import json
import math
import os
import pkgutil
import signal
import socket
import struct
import sys
import time
from types import ModuleType
from typing import Any


def _preload() -> None:
    ours = ("aemp_gevent.toolkit", "aemp_gevent.testing", "aemp_gevent.contrib")
    for name in (*ours, "rich.console", "rich.table", "flask", "cbor2", "_pytest.python", "pytest", "coverage"):
        try:
            importlib.import_module(name)
        except ImportError:
            continue
    import aemp_command
    import aemp_gevent.cli

    for package in (aemp_command, aemp_gevent.cli):
        for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    # What a program prints is compared: not what it says when the machine stood still for a second.
    from aemp_gevent.runtime import loop_watch

    loop_watch.BLOCKED_SECONDS = math.inf


def _serve(server: socket.socket) -> dict[str, Any]:
    """Fork for each request; return it in the child. Ends the process when nobody is left to ask."""
    while True:
        data, descriptors, _flags, _address = socket.recv_fds(server, 1 << 20, 64)
        if not data:
            os._exit(0)
        reading, writing = os.pipe()
        between = os.fork()
        if between == 0:
            parent = os.getpid()
            child = os.fork()
            if child == 0:
                while os.getppid() == parent:  # a program may want to end with its parent, which is not this one
                    time.sleep(0.0005)
                return {**json.loads(data), "descriptors": descriptors}
            os.write(writing, struct.pack("=i", child))
            os._exit(0)  # and the process that asked adopts the child
        os.close(writing)
        pid = os.read(reading, 4)
        os.close(reading)
        os.waitpid(between, 0)
        for descriptor in descriptors:
            os.close(descriptor)
        server.send(pid)


def _become(request: dict[str, Any]) -> None:
    """Take over what a process is started with."""
    descriptors = request["descriptors"]
    wanted = [0, 1, 2, *request["pass_fds"]]
    # Out of each other's way first.
    above = [os.dup2(own, 512 + number) for number, own in enumerate(descriptors)]
    os.closerange(3, 512)
    for own, number in zip(above, wanted, strict=True):
        os.dup2(own, number)
        os.close(own)
    if request["new_session"]:
        os.setsid()
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    signal.signal(signal.SIGINT, signal.SIG_IGN if request["ignores_sigint"] else signal.default_int_handler)
    unbuffered = request["args"][0] == "-u" or "PYTHONUNBUFFERED" in os.environ
    encoding, _, errors = os.environ.get("PYTHONIOENCODING", "").partition(":")
    how: dict[str, Any] = {"encoding": encoding or None, "errors": errors or None}
    sys.stdin = open(0, closefd=False, **how)
    if unbuffered:
        raw = io.FileIO(1, "w", closefd=False)
        sys.stdout = io.TextIOWrapper(raw, write_through=True, **how)  # type: ignore[arg-type]
    else:
        sys.stdout = open(1, "w", buffering=1 if os.isatty(1) else -1, closefd=False, **how)
    how["errors"] = "backslashreplace"
    sys.stderr = open(2, "w", buffering=1, closefd=False, **how)
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr


def _main_module(request: dict[str, Any]) -> tuple[ModuleType, object]:
    """Return the module ``__main__`` of the program, and its code."""
    how, *words = request["args"][1:] if request["args"][0] == "-u" else request["args"]
    main = ModuleType("__main__")
    main.__builtins__ = sys.modules["builtins"]
    path = list(filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)))
    if how == "-c":
        source, *words = words
        first, name, code = "", "-c", compile(source, "<string>", "exec")
    elif how == "-m":
        module, *words = words
        first = request["cwd"]
        sys.path[:0] = [first, *path]
        spec = importlib.util.find_spec(module)
        if spec is not None and spec.submodule_search_locations is not None:
            spec = importlib.util.find_spec(module + ".__main__")
        if spec is None:
            sys.exit(f"{sys.executable}: No module named {module}")
        del sys.path[: 1 + len(path)]
        main.__spec__, main.__file__, main.__package__ = spec, spec.origin, spec.parent
        name, code = spec.origin, spec.loader.get_code(spec.name)
    else:
        first, name = os.path.dirname(os.path.abspath(how)), how
        main.__file__ = os.path.abspath(how)
        with open(how, "rb") as file:
            code = compile(file.read(), main.__file__, "exec")
    sys.path[:0] = [first, *path]
    sys.argv = [name, *words]
    sys.orig_argv = [sys.executable, *request["args"]]
    sys.modules["__main__"] = main
    return main, code


if __name__ == "__main__":
    sys.path[0] = os.path.dirname(sys.path[0])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is meant for the tests and the processes that they started
    _preload()
    del sys.path[0]
    sys.path_importer_cache.clear()
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=int(sys.argv[1])) as _socket:
        _request = _serve(_socket)
        _socket.detach()
    _become(_request)
    _main, _code = _main_module(_request)
    if "COVERAGE_PROCESS_CONFIG" in os.environ:
        from coverage import process_startup

        process_startup(force=True)
    try:
        exec(_code, _main.__dict__)
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as _error:
        _error.__traceback__ = _error.__traceback__.tb_next
        sys.excepthook(type(_error), _error, _error.__traceback__)
        sys.exit(1)
