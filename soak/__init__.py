# SPDX-License-Identifier: MIT
"""Many nodes, many faults, for a while; then everything that happened is checked against what the library promises."""
