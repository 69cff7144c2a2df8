# SPDX-License-Identifier: MIT
"""Files with certificates."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.tls_nodes import SHARED
from tests.support.tls_peers import Files


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.fixture
def shared(files: Files) -> str:
    return files.write(SHARED)
