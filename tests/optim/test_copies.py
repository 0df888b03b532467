"""FTP and the drop-in optimizers survive deepcopy and pickle."""

import copy
import pickle

import pytest
import torch

from ftp_cl.optim import FTP, SGDP, AdamP

COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda thing: pickle.loads(pickle.dumps(thing)),
}


@pytest.fixture(params=COPIES, ids=list(COPIES))
def copied(request):
    return COPIES[request.param]


def test_a_copy_of_ftp_is_unattached_and_goes_on_after_attach(make_model, train, assert_same_weights, copied):
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    ftp = FTP(model, exclude="head").attach(optimizer)
    train(model, optimizer, range(5))
    other_model, other_optimizer, other_ftp = copied((model, optimizer, ftp))
    assert not other_ftp.is_attached_to(other_optimizer)
    assert ftp.is_attached_to(optimizer)
    other_ftp.attach(other_optimizer)
    train(model, optimizer, range(5, 10))
    train(other_model, other_optimizer, range(5, 10))
    assert_same_weights(model, other_model)
    assert ftp.radii() == other_ftp.radii()


@pytest.mark.parametrize("kind", [AdamP, SGDP], ids=lambda kind: kind.__name__)
def test_a_copy_of_a_drop_in_optimizer_still_projects(make_model, train, assert_same_weights, copied, kind):
    model = make_model()
    names, parameters = zip(*model.named_parameters(), strict=True)
    optimizer = kind([{"params": parameters, "name": names}], lr=0.05, exclude_set={"head.*"})
    train(model, optimizer, range(5))
    other_model, other = copied((model, optimizer))
    assert other.ftp.is_attached_to(other)
    assert optimizer.ftp.is_attached_to(optimizer)
    train(model, optimizer, range(5, 10))
    train(other_model, other, range(5, 10))
    assert_same_weights(model, other_model)
    assert optimizer.ftp.radii() == other.ftp.radii()
    other.add_param_group({"params": [torch.nn.Parameter(torch.ones(2))], "name": ["late"]})
    assert "late" in other.ftp.projected_names()
    assert "late" not in optimizer.ftp.projected_names()
