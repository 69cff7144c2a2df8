#!/bin/sh
# SPDX-License-Identifier: MIT
# Two backends and three web workers; all end together.
cd "$(dirname "$0")" || exit
started=
# Not "jobs -p", which some shells leave empty in a trap.
trap 'kill $started 2>/dev/null; wait' EXIT
trap 'exit 143' TERM INT HUP
python backend.py & started="$started $!"
python backend.py & started="$started $!"
gunicorn --preload -k gevent -w 3 app:app & started="$started $!"
wait $!
