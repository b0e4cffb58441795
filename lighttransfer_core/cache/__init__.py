"""The hybrid cache: full and streaming layers behind transformers' cache interface."""

from lighttransfer_core.cache.full import FullLayer
from lighttransfer_core.cache.hybrid import HybridCache, NativeLayer
from lighttransfer_core.cache.layer import HybridLayer, Segment
from lighttransfer_core.cache.padding import Padding
from lighttransfer_core.cache.policy import PromptObserver, StaticPolicy
from lighttransfer_core.cache.streaming import StreamingLayer

__all__ = [
    "FullLayer",
    "HybridCache",
    "HybridLayer",
    "NativeLayer",
    "Padding",
    "PromptObserver",
    "Segment",
    "StaticPolicy",
    "StreamingLayer",
]
