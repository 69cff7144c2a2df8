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
        "gensecret": Entry("setting_up:gensecret", "Generate a secret for the network."),
        "setsecret": Entry("setting_up:setsecret", "Set the secret."),
        "delsecret": Entry("setting_up:delsecret", "Remove the secret."),
        "gencert": Entry("authority:gencert", "Generate a certificate that all nodes share."),
        "setcert": Entry("setting_up:setcert", "Set the file with the certificate and its key."),
        "delcert": Entry("setting_up:delcert", "Remove the certificate."),
        "setnodeid": Entry("setting_up:setnodeid", "Set the node ID."),
        "delnodeid": Entry("setting_up:delnodeid", "Remove the node ID."),
        "addseed": Entry("setting_up:addseed", "Add a seed."),
        "delseed": Entry("setting_up:delseed", "Remove a seed."),
        "setseeds": Entry("setting_up:setseeds", "Set all seeds."),
        "delseeds": Entry("setting_up:delseeds", "Remove all seeds."),
        "addbind": Entry("setting_up:addbind", "Add an address to listen on."),
        "delbind": Entry("setting_up:delbind", "Remove an address to listen on."),
        "setbinds": Entry("setting_up:setbinds", "Set all addresses to listen on."),
        "delbinds": Entry("setting_up:delbinds", "Remove all addresses to listen on."),
        "addservice": Entry("setting_up:addservice", "Add a service."),
        "delservice": Entry("setting_up:delservice", "Remove a service."),
        "setservices": Entry("setting_up:setservices", "Set all services."),
        "delservices": Entry("setting_up:delservices", "Remove all services."),
        "set": Entry("setting_up:set_", "Set any setting."),
        "del": Entry("setting_up:del_", "Remove any setting."),
        "profile": Entry("setting_up:profile", "Apply the following commands to a profile."),
        "setparent": Entry("setting_up:setparent", "Set a profile's parent, from which it inherits."),
        "delparent": Entry("setting_up:delparent", "Remove a profile's parent."),
        "delprofile": Entry("setting_up:delprofile", "Delete a profile."),
        "showprofile": Entry("showing:showprofile", "Show the settings of a profile itself."),
        "showconfig": Entry("showing:showconfig", "Show a node's settings, and where each is set."),
    },
    "Maintain": {
        "ca": Entry("authority:ca", "Run a certificate authority for the nodes."),
        "import-perl": Entry("perl:import_perl", "Import the configuration of AnyEvent::MP."),
    },
    "Run": {
        "run": Entry("running:run", "Run a node with its services."),
    },
    "Talk": {
        "snd": Entry("talking:snd", "Send a message to a port."),
        "cal": Entry("talking:cal", "Send a request to a port, and print the answer."),
        "mon": Entry("talking:mon", "Wait for a port to die, and print the reason."),
        "spawn": Entry("talking:spawn", "Run a function in a new port of a node."),
        "eval": Entry("talking:eval_", "Evaluate Python on a node."),
        "shell": Entry("prompt:shell", "Open a Python prompt on the network."),
    },
    "Look": {
        "nodes": Entry("looking:nodes", "List the nodes."),
        "ports": Entry("looking:ports", "List the ports of a node, or of all nodes."),
        "groups": Entry("looking:groups", "List the directory's families, or the entries of one."),
        "trace": Entry("tracing:trace", "Follow the links from node to node, and draw them."),
        "top": Entry("watching:top", "Watch nodes, links and ports live."),
        "ping": Entry("measuring:ping", "Measure round trips to a node."),
        "bench": Entry("measuring:bench", "Measure how many messages a second a node handles."),
        "log": Entry("listening:log", "Follow the logs of all nodes."),
        "dump": Entry("dumping:dump", "Show the messages between two nodes."),
    },
}

COMMANDS: dict[str, Entry] = {name: entry for section in SECTIONS.values() for name, entry in section.items()}
