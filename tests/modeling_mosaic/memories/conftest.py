"""All that memories promise, they promise of both models."""

import pytest


@pytest.fixture
def make_config(kind, make_config, make_v2_config):
    return {"mosaic": make_config, "mosaic_v2": make_v2_config}[kind]


@pytest.fixture
def make_model(make_either):
    return make_either
