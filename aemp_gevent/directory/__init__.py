# SPDX-License-Identifier: MIT
"""The directory: the database that the nodes of a network share."""
