# SPDX-License-Identifier: MIT
"""Names of nodes and ports, and the network addresses that they lead to."""
