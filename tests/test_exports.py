"""What packages export: it is there, and not imported before it is asked for."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

import taskpress
from taskpress import errors

PACKAGES = ("auxiliary", "datasets", "evaluation", "recognition", "training")


@pytest.mark.parametrize("name", PACKAGES)
def test_every_export_is_there(name: str) -> None:
    package = import_module(f"taskpress.{name}")
    for exported in package.__all__:
        found = getattr(package, exported)
        assert found.__name__ == exported
        assert found.__module__.startswith(f"taskpress.{name}.")
    with pytest.raises(AttributeError, match=f"taskpress.{name}.*nothing_of_the_kind"):
        _ = package.nothing_of_the_kind


def test_every_error_is_at_the_top() -> None:
    for name, value in vars(errors).items():
        if isinstance(value, type) and issubclass(value, taskpress.TaskPressError):
            assert getattr(taskpress, name) is value and name in taskpress.__all__
    assert issubclass(taskpress.ConfigError, ValueError)


def test_nothing_heavy_is_imported_unasked() -> None:
    packages = ", ".join(f"taskpress.{name}" for name in PACKAGES)
    look = f"import sys, taskpress, {packages}; print({{'torch', 'numpy', 'lightning'}} & sys.modules.keys())"
    outcome = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert outcome.stdout.strip() == "set()"
