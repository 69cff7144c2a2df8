# SPDX-License-Identifier: MIT
"""Run many nodes with many faults, and check what happened against the guarantees of the library."""
