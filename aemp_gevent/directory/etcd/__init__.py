# SPDX-License-Identifier: MIT
"""The directory kept in an etcd cluster."""
