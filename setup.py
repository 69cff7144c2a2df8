# SPDX-License-Identifier: MIT
"""Compile the hot modules, if that is possible; all metadata is in setup.cfg.

The modules are those that have a ``.pxd`` beside them, with the types of what they declare. One that has a ``.pyx`` as
well is compiled from that, and not from its source. The sources stay what they are: without a compiler, or without
Cython, the package is installed without compiled modules, and works the same.

Environment:
    AEMP_PURE_PYTHON: 1 compiles nothing; 0 fails where compiling does. By default a failure is only reported.
        Nothing is compiled for an editable installation, whose sources are there to be edited: see ``make compiled``.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from multiprocessing import get_start_method
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

WISH = os.environ.get("AEMP_PURE_PYTHON", "")

# nonecheck: an attribute of None is an error, as in the sources, and not what happens to be in the memory there.
# annotation_typing: annotations are not types, which would refuse subclasses of built-in classes, such as enums.
DIRECTIVES = {"language_level": "3", "nonecheck": True, "annotation_typing": False, "auto_pickle": False}


class BuildAllOrNothing(build_ext):
    """Compile all modules, or none: they share the layout of their objects."""

    def initialize_options(self) -> None:
        super().initialize_options()
        self.parallel = True  # as many as there are processors

    def run(self) -> None:
        if self.editable_mode:
            return
        try:
            self._translate()
            super().run()
        except (Exception, SystemExit) as error:  # whatever may be missing here
            if WISH == "0":
                raise
            for extension in self.extensions:
                Path(self.get_ext_fullpath(extension.name)).unlink(missing_ok=True)
            self.warn(f"compiling failed, so that the package is installed without compiled modules: {error!r}")

    def _translate(self) -> None:
        """Translate the modules to C."""
        from Cython.Build import cythonize  # noqa: PLC0415  # may be missing

        # At once, where processes can be forked: others would run this file again.
        can_fork = get_start_method() == "fork"
        made = cythonize(
            self.extensions,
            nthreads=os.cpu_count() or 1 if can_fork else 0,
            build_dir=self.build_temp,
            compiler_directives=DIRECTIVES,
        )
        for extension, translated in zip(self.extensions, made, strict=True):
            extension.sources = translated.sources


SOURCES = (path.with_suffix(".py") for path in Path("aemp_gevent").rglob("*.pxd"))
MODULES = [] if WISH not in {"", "0"} else sorted(path.with_suffix("") for path in SOURCES if path.exists())


def source(module: Path) -> Path:
    """Return what a module is compiled from."""
    by_hand = module.with_suffix(".pyx")
    return by_hand if by_hand.exists() else module.with_suffix(".py")


setup(
    cmdclass={"build_ext": BuildAllOrNothing},
    ext_modules=[
        Extension(".".join(path.parts), [str(source(path))], depends=[f"{path}.pxd"], extra_compile_args=["-g0"])
        for path in MODULES
    ],
    # Not in pyproject.toml, which would have it downloaded where nothing is compiled.
    setup_requires=["Cython>=3.1"] if MODULES and find_spec("Cython") is None else [],
)
