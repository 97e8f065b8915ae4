"""Rate of real files against what a recognizer still sees in them."""

from typing import TYPE_CHECKING

from taskpress.exports import exporting

if TYPE_CHECKING:
    from taskpress.evaluation.allocation import Allocation, allocate
    from taskpress.evaluation.anchors import Anchor, anchor
    from taskpress.evaluation.comparison import Comparison, compare
    from taskpress.evaluation.rate_accuracy import CodecCoder, Coder, Reference, evaluate, make_reference
    from taskpress.evaluation.rd_figure import write_comparison
    from taskpress.evaluation.result import Result

__all__ = [
    "Allocation",
    "Anchor",
    "CodecCoder",
    "Coder",
    "Comparison",
    "Reference",
    "Result",
    "allocate",
    "anchor",
    "compare",
    "evaluate",
    "make_reference",
    "write_comparison",
]

__getattr__ = exporting(
    __name__,
    Allocation="allocation",
    Anchor="anchors",
    CodecCoder="rate_accuracy",
    Coder="rate_accuracy",
    Comparison="comparison",
    Reference="rate_accuracy",
    Result="result",
    allocate="allocation",
    anchor="anchors",
    compare="comparison",
    evaluate="rate_accuracy",
    make_reference="rate_accuracy",
    write_comparison="rd_figure",
)
