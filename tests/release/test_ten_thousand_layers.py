"""A plain tanh net of 10,000 layers learns the digits: a few minutes on two cores."""

from isometry.common import studies
from isometry.common.contract import Backend

STUDY = "ten-thousand-layers"
LIMIT = 600.0  # seconds


def test_ten_thousand_layers_learn(nx: Backend) -> None:
    parameters = {"depth": 10_000, "steps": 120, "contrasts": "", "convolutional": 0}
    result = studies.run(STUDY, nx, parameters=parameters)
    print(f"{nx.name}: {result.finding}")
    assert [check for check in result.checks if not check.passed] == []
    assert result.seconds <= LIMIT


def test_contrasts_fail_at_a_thousand_layers(nx: Backend) -> None:
    parameters = {"depth": 1000, "rungs": 0, "contrasts": "gaussian,gain", "convolutional": 0}
    result = studies.run(STUDY, nx, parameters=parameters)
    print(f"{nx.name}: {result.finding}")
    assert [check for check in result.checks if not check.passed] == []
    for name in ("gaussian", "gain"):
        assert result.quantities[f"accuracy/{name}"].values[-1] < 0.5
