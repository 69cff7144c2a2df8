# SPDX-License-Identifier: MIT
"""Which commands there are, and where: the help lists them from here, without importing one.

A command is a ``click.Command``. Its ``help`` is the docstring of its function, the one
line below is what ``aemp --help`` says of it.
"""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    """A command.

    Attributes:
        where: Its module in ``aemp_gevent.cli``, and its name there.
        line: What it does, in one line.
    """

    where: str
    line: str


SET_UP = "Set up"
"""The section whose words may stand one after the other, and are done in one go."""

SECTIONS: dict[str, dict[str, Entry]] = {
    SET_UP: {
        "gensecret": Entry("setting_up:gensecret", "Generate a secret for the network."),
        "setsecret": Entry("setting_up:setsecret", "Set the secret."),
        "delsecret": Entry("setting_up:delsecret", "Forget the secret."),
        "gencert": Entry("authority:gencert", "Generate a certificate for all nodes to share."),
        "setcert": Entry("setting_up:setcert", "Name the file with the certificate and its key."),
        "delcert": Entry("setting_up:delcert", "Forget the certificate."),
        "setnodeid": Entry("setting_up:setnodeid", "Set the node ID."),
        "delnodeid": Entry("setting_up:delnodeid", "Forget the node ID."),
        "addseed": Entry("setting_up:addseed", "Add a seed."),
        "delseed": Entry("setting_up:delseed", "Remove a seed."),
        "setseeds": Entry("setting_up:setseeds", "Set all seeds."),
        "delseeds": Entry("setting_up:delseeds", "Forget the seeds."),
        "addbind": Entry("setting_up:addbind", "Add a place to listen at."),
        "delbind": Entry("setting_up:delbind", "Remove a place to listen at."),
        "setbinds": Entry("setting_up:setbinds", "Set all places to listen at."),
        "delbinds": Entry("setting_up:delbinds", "Forget where to listen."),
        "addservice": Entry("setting_up:addservice", "Add a service."),
        "delservice": Entry("setting_up:delservice", "Remove a service."),
        "setservices": Entry("setting_up:setservices", "Set all services."),
        "delservices": Entry("setting_up:delservices", "Forget the services."),
        "set": Entry("setting_up:set_", "Set any setting."),
        "del": Entry("setting_up:del_", "Forget any setting."),
        "profile": Entry("setting_up:profile", "Apply what follows to a profile."),
        "setparent": Entry("setting_up:setparent", "Set the profile to inherit from."),
        "delparent": Entry("setting_up:delparent", "Stop inheriting from another profile."),
        "delprofile": Entry("setting_up:delprofile", "Delete a profile."),
        "showprofile": Entry("showing:showprofile", "Show what a profile itself says."),
        "showconfig": Entry("showing:showconfig", "Show a node's settings, and where each of them is set."),
    },
    "Keep house": {
        "ca": Entry("authority:ca", "Run a certificate authority for the nodes."),
        "import-perl": Entry("perl:import_perl", "Take over the configuration of AnyEvent::MP."),
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
        "shell": Entry("prompt:shell", "A Python prompt, as a port of the network."),
    },
    "Look": {
        "nodes": Entry("looking:nodes", "List the nodes."),
        "ports": Entry("looking:ports", "List the ports of a node, or of all."),
        "groups": Entry("looking:groups", "List the directory's families, or what is in one."),
        "trace": Entry("tracing:trace", "Walk the links from node to node, and draw them."),
        "top": Entry("watching:top", "Watch nodes, links and ports, live."),
        "ping": Entry("measuring:ping", "Measure round trips to a node."),
        "bench": Entry("measuring:bench", "Measure how many messages a second a node takes."),
        "log": Entry("listening:log", "Follow the logs of all nodes."),
        "dump": Entry("dumping:dump", "Show the messages between two nodes."),
    },
}

COMMANDS: dict[str, Entry] = {name: entry for section in SECTIONS.values() for name, entry in section.items()}
