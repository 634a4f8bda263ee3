"""Configuration files of other programs, made from an inventory."""

from exo.cluster.render.files import KINDS, RenderedFile, render

__all__ = ["KINDS", "RenderedFile", "render"]
