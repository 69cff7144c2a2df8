# SPDX-License-Identifier: MIT
"""The other nodes: how they are found, reached, relayed to and given up."""
