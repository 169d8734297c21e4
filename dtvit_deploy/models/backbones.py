"""The configurations of classifiers: each is a backbone of dense tasks, too, by its ``maps``."""

from dtvit_deploy.models.dualtoken.config import DualTokenConfig
from dtvit_deploy.models.lightvit.config import LightViTConfig
from dtvit_deploy.models.t2t.config import T2TConfig

Backbone = DualTokenConfig | LightViTConfig | T2TConfig
