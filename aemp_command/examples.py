# SPDX-License-Identifier: MIT
"""Examples of each command, for its help and the reference; a test runs them."""

from __future__ import annotations

EXAMPLES: dict[str, tuple[str, ...]] = {
    # Set up
    "gensecret": ("aemp gensecret", "aemp gensecret profile server setbinds '*:4040'"),
    "setsecret": ("aemp setsecret - < secret.txt", """aemp setsecret '["new", "old"]'"""),
    "delsecret": ("aemp delsecret",),
    "gencert": ("aemp gencert",),
    "setcert": ("aemp profile backend setcert backend.pem",),
    "delcert": ("aemp profile backend delcert",),
    "setnodeid": ("aemp setnodeid 10.0.0.5:4040", "aemp profile worker setnodeid 'worker/%n/%u'"),
    "delnodeid": ("aemp profile worker delnodeid",),
    "addseed": ("aemp addseed 10.0.0.2:4040",),
    "delseed": ("aemp delseed 10.0.0.1:4040",),
    "setseeds": ("aemp setseeds 10.0.0.1:4040,10.0.0.2:4040", "aemp profile server setseeds ''"),
    "delseeds": ("aemp delseeds",),
    "addbind": ("aemp profile server addbind '*:4041'",),
    "delbind": ("aemp profile server delbind '*:4040'",),
    "setbinds": ("aemp profile server setbinds '*:4040'", "aemp profile client setbinds ''"),
    "delbinds": ("aemp profile server delbinds",),
    "addservice": ("aemp profile server addservice shop.stock", """aemp addservice '["shop.workers.work", 4]'"""),
    "delservice": ("aemp profile server delservice shop.orders.serve",),
    "setservices": ("aemp profile server setservices shop.stock,shop.orders.serve",),
    "delservices": ("aemp profile server delservices",),
    "set": ("aemp set monitor_timeout 10", "aemp profile worker set allow_spawn 'shop.workers.*'"),
    "del": ("aemp del monitor_timeout",),
    "profile": ("aemp profile server setnodeid backend profile client addseed 10.0.0.5:4040",),
    "setparent": ("aemp profile worker setparent client",),
    "delparent": ("aemp profile worker delparent",),
    "delprofile": ("aemp delprofile worker",),
    "showprofile": ("aemp showprofile", "aemp showprofile server"),
    "showconfig": ("aemp showconfig server", "aemp showconfig --all --json"),
    # Maintain
    "ca init": ("aemp ca init --name 'CA of the shop'",),
    "ca issue": ("aemp ca issue backend", "aemp ca issue 'worker/*' --days 90 --out worker.pem"),
    "import-perl": ("aemp import-perl --dry-run", "aemp import-perl ~/.perl-anyevent-mp"),
    # Run
    "run": (
        "aemp run server",
        "aemp run --nodeid 127.0.0.1:4041 --seed 127.0.0.1:4040 --service shop.orders.serve",
        "aemp run server --health-port 8080 --drain 20",
    ),
    # Talk
    "snd": ("aemp snd backend#orders note 'three pieces'",),
    "cal": ("aemp cal backend#orders price 3", """aemp cal backend#orders add '["nuts", 5]' --json"""),
    "mon": (
        "aemp mon backend#orders",
        "aemp mon backend#orders --timeout 60 --json",
    ),
    "spawn": ("aemp spawn backend shop.count nuts 12",),
    "eval": ("aemp eval 127.0.0.1:4040 6*7",),
    "shell": ("aemp shell", "aemp shell 127.0.0.1:4040"),
    # Look
    "nodes": ("aemp nodes", "aemp nodes --json"),
    "ports": ("aemp ports", "aemp ports backend --limit 10"),
    "tree": ("aemp tree", "aemp tree backend --watch"),
    "groups": ("aemp groups", "aemp groups workers", "aemp groups workers --watch"),
    "trace": ("aemp trace", "aemp trace backend --dot", "aemp trace --svg network.svg"),
    "top": ("aemp top", "aemp top --once --view links"),
    "dashboard": ("aemp dashboard", "aemp dashboard --listen :8040 --allow-kill"),
    "ping": ("aemp ping backend -c 3 -i 0.2",),
    "bench": ("aemp bench backend --seconds 1 --size 1000",),
    "log": ("aemp log", "aemp log backend --level debug"),
    "dump": ("aemp dump 127.0.0.1:4040 --listen 127.0.0.1:5050",),
}
"""Example command lines by command. Subcommands are named with their group, such as ``ca init``."""
