# SPDX-License-Identifier: MIT
"""Who is where: the database that the nodes of a network share."""
