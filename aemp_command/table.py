# SPDX-License-Identifier: MIT
"""The table of all commands, from which ``aemp --help`` lists them without importing any.

A command is a ``click.Command``. Its own help text is the docstring of its function; its line in ``aemp --help`` is
in this table.
"""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    """A command.

    Attributes:
        where: Its module in ``aemp_gevent.cli``, and its name in that module.
        line: Its description, in one line.
    """

    where: str
    line: str


SET_UP = "Set up"
"""The section whose commands can follow one another on one command line and are then run together."""

SECTIONS: dict[str, dict[str, Entry]] = {
    SET_UP: {
        "gensecret": Entry("set_up:gensecret", "Generate a secret for the network."),
        "setsecret": Entry("set_up:setsecret", "Set the secret."),
        "delsecret": Entry("set_up:delsecret", "Remove the secret."),
        "gencert": Entry("ca:gencert", "Generate a certificate that all nodes share."),
        "setcert": Entry("set_up:setcert", "Set the file with the certificate and its key."),
        "delcert": Entry("set_up:delcert", "Remove the certificate."),
        "setnodeid": Entry("set_up:setnodeid", "Set the node ID."),
        "delnodeid": Entry("set_up:delnodeid", "Remove the node ID."),
        "addseed": Entry("set_up:addseed", "Add a seed."),
        "delseed": Entry("set_up:delseed", "Remove a seed."),
        "setseeds": Entry("set_up:setseeds", "Set all seeds."),
        "delseeds": Entry("set_up:delseeds", "Remove all seeds."),
        "addbind": Entry("set_up:addbind", "Add an address to listen on."),
        "delbind": Entry("set_up:delbind", "Remove an address to listen on."),
        "setbinds": Entry("set_up:setbinds", "Set all addresses to listen on."),
        "delbinds": Entry("set_up:delbinds", "Remove all addresses to listen on."),
        "addservice": Entry("set_up:addservice", "Add a service."),
        "delservice": Entry("set_up:delservice", "Remove a service."),
        "setservices": Entry("set_up:setservices", "Set all services."),
        "delservices": Entry("set_up:delservices", "Remove all services."),
        "set": Entry("set_up:set_", "Set any setting."),
        "del": Entry("set_up:del_", "Remove any setting."),
        "profile": Entry("set_up:profile", "Apply the following commands to a profile."),
        "setparent": Entry("set_up:setparent", "Set a profile's parent, from which it inherits."),
        "delparent": Entry("set_up:delparent", "Remove a profile's parent."),
        "delprofile": Entry("set_up:delprofile", "Delete a profile."),
        "showprofile": Entry("show:showprofile", "Show the settings of a profile itself."),
        "showconfig": Entry("show:showconfig", "Show a node's settings, and where each is set."),
    },
    "Maintain": {
        "ca": Entry("ca:ca", "Run a certificate authority for the nodes."),
        "import-perl": Entry("import_perl:import_perl", "Import the configuration of AnyEvent::MP."),
    },
    "Run": {
        "run": Entry("run:run", "Run a node with its services."),
    },
    "Talk": {
        "snd": Entry("talk:snd", "Send a message to a port."),
        "cal": Entry("talk:cal", "Send a request to a port, and print the answer."),
        "mon": Entry("talk:mon", "Wait for a port to die, and print the reason."),
        "spawn": Entry("talk:spawn", "Run a function in a new port of a node."),
        "eval": Entry("talk:eval_", "Evaluate Python on a node."),
        "shell": Entry("shell:shell", "Open a Python prompt on the network."),
    },
    "Look": {
        "nodes": Entry("nodes:nodes", "List the nodes."),
        "ports": Entry("ports:ports", "List the ports of a node, or of all nodes."),
        "tree": Entry("tree:tree", "Show supervision trees, and how their children are."),
        "groups": Entry("groups:groups", "List the directory's families, or the entries of one."),
        "trace": Entry("trace:trace", "Follow the links from node to node, and draw them."),
        "top": Entry("top:top", "Watch nodes, links and ports live."),
        "dashboard": Entry("dashboard:dashboard", "Show the network in a browser: nodes, links, ports, logs."),
        "ping": Entry("ping:ping", "Measure round trips to a node."),
        "bench": Entry("bench:bench", "Measure how many messages a second a node handles."),
        "log": Entry("log:log", "Follow the logs of all nodes."),
        "dump": Entry("dump:dump", "Show the messages between two nodes."),
    },
}

COMMANDS: dict[str, Entry] = {name: entry for section in SECTIONS.values() for name, entry in section.items()}
