"""Auxiliary branches: light recognition heads on the decoded latent, in training only."""

from typing import TYPE_CHECKING

from taskpress.exports import exporting

if TYPE_CHECKING:
    from taskpress.auxiliary.branch import AuxiliaryBranch, Lesson, branch_cost
    from taskpress.auxiliary.named import build_auxiliary

__all__ = [
    "AuxiliaryBranch",
    "Lesson",
    "branch_cost",
    "build_auxiliary",
]

__getattr__ = exporting(
    __name__,
    AuxiliaryBranch="branch",
    Lesson="branch",
    branch_cost="branch",
    build_auxiliary="named",
)
