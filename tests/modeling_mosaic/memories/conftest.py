"""All that memories promise, they promise of both models."""

import pytest


@pytest.fixture(params=["mosaic", "mosaic_v2"])
def kind(request):
    return request.param


@pytest.fixture
def make_config(kind, make_config, make_v2_config):
    return {"mosaic": make_config, "mosaic_v2": make_v2_config}[kind]


@pytest.fixture
def make_model(kind, make_model, make_v2):
    return {"mosaic": make_model, "mosaic_v2": make_v2}[kind]
