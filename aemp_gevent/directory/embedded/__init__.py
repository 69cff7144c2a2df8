# SPDX-License-Identifier: MIT
"""The directory kept by the nodes of the network themselves, as in AnyEvent::MP."""
