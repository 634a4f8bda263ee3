"""Model cards, the store on disk, the Modelfile, and pull."""

from exo.models.description import ModelDescription, describe_stored, modelfile_text, said_by, with_modelfile
from exo.models.hub_library import HubLibrary
from exo.models.keep_alive import parse_keep_alive
from exo.models.library import ModelLibrary
from exo.models.modelfile import Modelfile, ModelParameters, parse_modelfile, read_modelfile, with_from
from exo.models.modelfile_writer import write_modelfile
from exo.models.progress import Progress, Report
from exo.models.registry import card_from_short_shape, cards_by_id
from exo.models.store import ModelStore, StoredModel

__all__ = [
    "HubLibrary",
    "ModelDescription",
    "ModelLibrary",
    "ModelParameters",
    "ModelStore",
    "Modelfile",
    "Progress",
    "Report",
    "StoredModel",
    "card_from_short_shape",
    "cards_by_id",
    "describe_stored",
    "modelfile_text",
    "parse_keep_alive",
    "parse_modelfile",
    "read_modelfile",
    "said_by",
    "with_from",
    "with_modelfile",
    "write_modelfile",
]
