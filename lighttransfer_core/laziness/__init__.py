"""Laziness: the registered metrics, scores and rankings, aggregation over prompts, and the heap on the fly.

To add a metric, copy `worst_head.py`, change its dataclass, and import it here.
"""

from lighttransfer_core.laziness import (
    controls,
    echo,
    lazy_ratio,
    low_quantile,
    output_change,
    reach_effect,
    recall,
    residual_change,
    simlayer,
    squeeze_cosine,
    trials,
    worst_head,
)
from lighttransfer_core.laziness.metric import Metric, MetricInfo, get_metric, list_metrics, metric_info
from lighttransfer_core.laziness.on_the_fly import HeapPolicy, OnTheFly
from lighttransfer_core.laziness.ranking import layer_scores, layer_scores_steps, score_layers
from lighttransfer_core.selection import RECOMMENDED_METRIC, aggregate_scores, plan_from_scores, plan_from_threshold

__all__ = [
    "RECOMMENDED_METRIC",
    "HeapPolicy",
    "Metric",
    "MetricInfo",
    "OnTheFly",
    "aggregate_scores",
    "controls",
    "echo",
    "get_metric",
    "layer_scores",
    "layer_scores_steps",
    "lazy_ratio",
    "list_metrics",
    "low_quantile",
    "metric_info",
    "output_change",
    "plan_from_scores",
    "plan_from_threshold",
    "reach_effect",
    "recall",
    "residual_change",
    "score_layers",
    "simlayer",
    "squeeze_cosine",
    "trials",
    "worst_head",
]
