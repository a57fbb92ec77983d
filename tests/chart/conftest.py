"""What the tests of the charts share: helm, the charts, and one control plane a module."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from chart_outputs import Helm, charts, rendered
from controlplane import ControlPlane


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("charts")


@pytest.fixture(scope="session")
def offline(directory: Path) -> Helm:
    """helm without a cluster."""
    return Helm(directory)


@pytest.fixture(scope="session")
def both_charts(directory: Path, offline: Helm) -> tuple[Path, Path]:
    """The operator's chart, and the example driver's."""
    return charts(directory, offline)


@pytest.fixture(scope="session")
def operator_chart(both_charts: tuple[Path, Path]) -> Path:
    return both_charts[0]


@pytest.fixture(scope="session")
def driver_chart(both_charts: tuple[Path, Path]) -> Path:
    return both_charts[1]


@pytest.fixture(scope="session")
def texts(directory: Path, offline: Helm) -> dict[str, str]:
    """What each file of tests/chart/values renders to, by its name without the ending."""
    return dict(rendered(directory, offline))


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane with nothing in it."""
    with ControlPlane.start(tmp_path_factory.mktemp("plane")) as plane:
        yield plane


@pytest.fixture(scope="module")
def helm(plane: ControlPlane) -> Helm:
    """helm as the administrator of that control plane."""
    return Helm(plane.directory / "helm", plane.admin_kubeconfig)
