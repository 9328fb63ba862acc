"""What tests of configs share."""

import logging

import pytest

from panoptic_fpn_ext.engine.settings import silent_settings


@pytest.fixture
def warnings_of(caplog):
    """Calls a function and gives what `silent_settings` warned of meanwhile."""

    def call(function, *args, **kwargs) -> list[str]:
        silent_settings._said.clear()
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            function(*args, **kwargs)
        return [r.getMessage() for r in caplog.records if r.name == silent_settings.__name__]

    return call
