#!/bin/sh
# SPDX-License-Identifier: MIT
# Two backends and three web workers; all end together.
cd "$(dirname "$0")" || exit
trap 'kill $(jobs -p) 2>/dev/null' EXIT
trap 'exit 143' TERM INT
python backend.py &
python backend.py &
gunicorn --preload -k gevent -w 3 app:app &
wait $!
