"""The default implementation of the batch path's tools: numpy and package cryptography."""

from __future__ import annotations

from typing import Final

from wgpy.dataplane.offload_coalesce import NumpyMerger
from wgpy.dataplane.offload_segment import NumpySegmenter
from wgpy.dataplane.train import numpy_slab
from wgpy.dataplane.train_tools import Tools

INTERPRETED: Final = Tools(numpy_slab, NumpySegmenter, NumpyMerger)
