"""Refuse, in words, a Python that cannot make the environment. Runs on old versions too."""

import importlib.util
import sys

if sys.version_info < (3, 10):
    sys.exit(
        "exo needs Python 3.10 or later, this is %d.%d. Name another one: make serve PYTHON=python3.11"
        % sys.version_info[:2]
    )
if importlib.util.find_spec("ensurepip") is None:
    sys.exit("This Python cannot make environments with pip. On Debian and Ubuntu: apt install python3-venv")
