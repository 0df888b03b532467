"""Old import paths of public names."""

import importlib

import pytest

from ftp_cl import renamed


@pytest.mark.parametrize("module", renamed._NEW)
def test_every_old_name_leads_to_the_new_one_and_says_so(module):
    old = importlib.import_module(module)
    for name, (place, new_name) in renamed._NEW[module].items():
        expected = getattr(importlib.import_module(place), new_name)
        with pytest.warns(DeprecationWarning) as caught:
            assert getattr(old, name) is expected
        said = {(str(warning.message), warning.filename) for warning in caught}
        assert (f"{module}.{name} is {place}.{new_name} now.", __file__) in said, "it names the line of whoever asks"


def test_other_names_and_modules_are_as_unknown_as_ever():
    from ftp_cl.optim import once

    with pytest.raises(AttributeError, match=r"module 'ftp_cl\.optim\.once' has no attribute 'twice'"):
        _ = once.twice
    with pytest.raises(ModuleNotFoundError, match=r"ftp_cl\.optim\.twice"):
        importlib.import_module("ftp_cl.optim.twice")
