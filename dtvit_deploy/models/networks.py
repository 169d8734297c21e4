"""From a configuration to its network."""

from __future__ import annotations

from torch import nn

from dtvit_deploy.models.classifiers import classifier
from dtvit_deploy.models.dense.backbone import Features
from dtvit_deploy.models.dense.config import DenseConfig
from dtvit_deploy.models.dense.retinanet import RetinaNet
from dtvit_deploy.models.dense.segmentation import Segmenter
from dtvit_deploy.models.variant import Config

_BY_TASK = {"features": Features, "retinanet": RetinaNet, "deeplabv3": Segmenter, "pspnet": Segmenter}


def network_from_config(config: Config) -> nn.Module:
    """The network of that configuration, with fresh weights."""
    return _BY_TASK[config.task](config) if isinstance(config, DenseConfig) else classifier(config)
