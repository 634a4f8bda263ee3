"""For another program that serves an engine as the node does.

The settings of the command line are in exo.cli.settings, and progress bars in exo.cli.progress: both import little.
"""

from exo.cli.build import service_of
from exo.cli.chat import Ask, chat_in_terminal
from exo.cli.logs import set_up as set_up_logs
from exo.cli.run import ask_node, ask_service
from exo.cli.serve import Program, curl_example, serve_program
from exo.cluster.membership.member import Member

__all__ = [
    "Ask",
    "Member",
    "Program",
    "ask_node",
    "ask_service",
    "chat_in_terminal",
    "curl_example",
    "serve_program",
    "service_of",
    "set_up_logs",
]
