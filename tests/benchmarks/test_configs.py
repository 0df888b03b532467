"""Every benchmark has a configuration, and every configuration fits its benchmark."""

import inspect

import pytest
from hydra.utils import get_object

from ftp_cl.benchmarks import split_cifar100, split_digits
from ftp_cl.runs.catalogue import entry, names

BENCHMARKS = {name: entry("benchmark", name) for name in names("benchmark") if name != "own"}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_configuration_holds_options_at_their_defaults(name):
    options, parameters = dict(BENCHMARKS[name].keys), inspect.signature(get_object(BENCHMARKS[name].target)).parameters
    assert options.pop("name") == name
    assert options.keys() <= parameters.keys() - {"seed"}
    for key, value in options.items():
        default = parameters[key].default
        expected = list(default) if isinstance(default, tuple) else default
        assert value in (expected, [expected], "???"), key


@pytest.mark.parametrize("name", BENCHMARKS)
def test_docstring_describes_every_option(name):
    function = get_object(BENCHMARKS[name].target)
    documentation = inspect.getdoc(function)
    if "Everything is as in ``split_cifar100``" in documentation:
        documentation += inspect.getdoc(split_cifar100)
    for option in inspect.signature(function).parameters:
        assert f"\n    {option}: " in documentation, option


def test_an_option_that_no_benchmark_has_is_refused_by_its_name():
    with pytest.raises(TypeError, match=r"^split_digits\(\) got an unexpected keyword argument 'corruptions'$"):
        split_digits(corruptions="fog")
