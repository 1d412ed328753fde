"""Lets ``import torchvision`` work where its build, PyPI's for CUDA, does not fit torch's, for CPUs.

Its C++ library then does not load, which torchvision takes in silence; but one of its modules goes on to
describe the operators nms and qnms, which only that library declares, and the import dies. Declared here,
they can be described. They cannot be called; vLLM only resizes and normalises, which is plain torch.

``install`` copies this file into the environment, with a .pth file that runs ``watch`` in every Python there.
"""

import importlib.abc
import sys

DESCRIBES = "torchvision._meta_registrations"
BOXES = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


class _Watch(importlib.abc.MetaPathFinder):
    """Finds no module. When it is asked for ``DESCRIBES``, torch is there and torchvision about to be."""

    library = None

    def find_spec(self, fullname, *_):
        if fullname == DESCRIBES and _Watch.library is None:
            import torch

            if not hasattr(torch.ops.torchvision, "nms"):
                # Kept: what a library declares is gone with it.
                _Watch.library = torch.library.Library("torchvision", "DEF")
                _Watch.library.define("nms" + BOXES)
                _Watch.library.define("qnms" + BOXES)


def watch():
    """Look at imports from here on."""
    sys.meta_path.insert(0, _Watch())
