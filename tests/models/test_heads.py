"""Heads: logits, masks, growth, imprinting, state dicts, precision."""

import copy
import pickle
from types import SimpleNamespace

import pytest
import torch
from avalanche.models import IncrementalClassifier
from torch import nn
from torch.nn.functional import cosine_similarity

from ftp_cl.models import HEADS, CosineHead, LinearHead
from ftp_cl.models.heads import live_classes

MASK = -1000.0


def experience(*classes):
    return SimpleNamespace(classes_in_this_experience=list(classes))


def weight_of(head):
    return head.weight if isinstance(head, CosineHead) else head.classifier.weight


@pytest.fixture(params=sorted(HEADS))
def head(request):
    return HEADS[request.param](5)


def test_cosine_logits_are_the_scale_times_the_cosine():
    head = CosineHead(7, scale=10.0)
    head.activate(range(4))
    features = torch.randn(3, 7)
    expected = 10.0 * cosine_similarity(features[:, None], head.weight[None], dim=2)
    torch.testing.assert_close(head(features), expected)


def test_linear_logits_are_those_of_its_layer():
    head = LinearHead(7)
    head.activate(range(4))
    features = torch.randn(3, 7)
    torch.testing.assert_close(head(features), features @ head.classifier.weight.T + head.classifier.bias)


def test_classes_never_trained_are_masked(head):
    head.adaptation(experience(1, 4))
    logits = head(torch.randn(3, 5))
    assert logits.shape == (3, 5)
    assert (logits[:, [0, 2, 3]] == MASK).all()
    assert (logits[:, [1, 4]] > MASK / 2).all()


def test_masked_rows_get_no_gradient(head):
    head.adaptation(experience(1, 3))
    head(torch.randn(3, 5)).logsumexp(1).sum().backward()
    gradient = weight_of(head).grad
    assert not gradient[[0, 2]].any()
    assert gradient[[1, 3]].any()


def test_growth_keeps_rows_device_dtype_and_requires_grad(head):
    head.adaptation(experience(0, 1))
    head.double().requires_grad_(False)
    before = {name: parameter.clone() for name, parameter in head.named_parameters()}
    head.adaptation(experience(6))
    for name, parameter in head.named_parameters():
        assert torch.equal(parameter[:2], before[name])
        assert parameter.shape[0] == 7
        assert parameter.dtype == torch.float64
        assert not parameter.requires_grad
        assert parameter.is_contiguous()


def test_growth_twice_for_one_experience_changes_nothing(head):
    head.adaptation(experience(0, 3))
    parameters = list(head.parameters())
    before = copy.deepcopy(head.state_dict())
    head.adaptation(experience(0, 3))
    assert all(old is new for old, new in zip(parameters, head.parameters(), strict=True))
    assert all(torch.equal(before[name], value) for name, value in head.state_dict().items())


def test_evaluation_on_unseen_classes_widens_the_logits_and_leaves_the_parameters(head):
    head.adaptation(experience(0, 1))
    parameters = list(head.parameters())
    head.eval()
    head.adaptation(experience(5))
    logits = head(torch.randn(3, 5))
    assert logits.shape == (3, 6)
    assert (logits[:, 2:] == MASK).all()
    assert head.active_units.tolist() == [1, 1]
    assert all(old is new for old, new in zip(parameters, head.parameters(), strict=True))
    head.train()
    head.adaptation(experience(2, 3))
    assert head(torch.randn(3, 5)).shape == (3, 6)


def test_growth_draws_nothing_from_the_global_generator(head):
    state = torch.get_rng_state()
    head.adaptation(experience(9))
    assert torch.equal(state, torch.get_rng_state())


def test_new_rows_differ_among_each_other_and_with_the_seed():
    torch.manual_seed(1)
    head = LinearHead(20)
    head.resize(4)
    rows = head.classifier.weight
    assert len(rows.unique(dim=0)) == 4
    torch.manual_seed(2)
    other = LinearHead(20, initial_classes=4)
    assert not torch.equal(rows, other.classifier.weight)
    assert rows.abs().max() <= 21**-0.5


def test_unlabelled_images_are_no_class(head):
    head.adaptation(experience(-1, 0))
    assert head.active_units.tolist() == [1, 0]
    head.adaptation(experience(-1))
    assert head.active_units.tolist() == [1, 0]


def test_an_experience_without_classes_is_refused_with_the_remedy(head):
    with pytest.raises(ValueError, match="with_classes_timeline"):
        head.adaptation(SimpleNamespace())


def test_imprinting_sets_rows_to_the_mean_unit_feature():
    head = CosineHead(2)
    features = torch.tensor([[3.0, 4.0], [0.0, 2.0], [5.0, 0.0]])
    head.imprint(features, torch.tensor([3, 3, 1]))
    # Class 3: the mean of (.6, .8) and (0, 1); class 1: (1, 0).
    torch.testing.assert_close(head.weight[3], torch.tensor([0.3, 0.9]))
    torch.testing.assert_close(head.weight[1], torch.tensor([1.0, 0.0]))
    assert head.imprinted.tolist() == [0, 1, 0, 1]
    assert head.active_units.tolist() == [0, 1, 0, 1]
    assert head.unimprinted([0, 1, 3, 8]) == [0, 8]


def test_imprinting_leaves_other_rows():
    head = CosineHead(4)
    head.activate([0, 1, 2])
    before = head.weight.detach().clone()
    head.imprint(torch.randn(3, 4), torch.tensor([1, 1, 1]))
    assert torch.equal(head.weight[[0, 2]], before[[0, 2]])


def test_a_class_of_zero_features_keeps_a_row_that_can_be_trained():
    head = CosineHead(4)
    head.imprint(torch.zeros(3, 4), torch.tensor([0, 0, 0]))
    assert head.weight[0].any()
    assert head.unimprinted([0]) == []


@pytest.mark.parametrize(
    ("features", "targets", "message"),
    [
        (torch.randn(3, 5), torch.tensor([0, 0, 0]), r"\[N, 4\]"),
        (torch.randn(3, 4), torch.tensor([0, 0]), r"\[N, 4\]"),
        (torch.full((1, 4), float("nan")), torch.tensor([0]), "not finite"),
        (torch.randn(1, 4), torch.tensor([-1]), "0 or more"),
    ],
)
def test_imprinting_refuses_what_would_spoil_rows(features, targets, message):
    head = CosineHead(4)
    before = head.weight.detach().clone()
    with pytest.raises(ValueError, match=message):
        head.imprint(features, targets)
    assert torch.equal(head.weight, before)


def test_a_scale_that_is_not_positive_is_refused():
    with pytest.raises(ValueError, match="scale"):
        CosineHead(4, scale=0.0)


def test_zero_features_and_rows_give_zero_logits_and_finite_gradients():
    head = CosineHead(4)
    head.activate([0, 1])
    with torch.no_grad():
        head.weight[0] = 0
    features = torch.zeros(2, 4, requires_grad=True)
    logits = head(features)
    logits.sum().backward()
    assert not logits.any()
    assert not features.grad.any()
    assert not head.weight.grad.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_features_and_weights_give_finite_float32_logits(dtype):
    head = CosineHead(64).to(dtype)
    # Squares of these features overflow float16, and those of the weights lose their digits in it.
    with torch.no_grad():
        head.weight.mul_(1e-2)
    head.activate([0, 1])
    features = (1e3 * torch.randn(8, 64)).to(dtype).requires_grad_()
    logits = head(features)
    logits.logsumexp(1).sum().backward()
    assert logits.dtype == torch.float32
    torch.testing.assert_close(
        logits, 16 * cosine_similarity(features.float()[:, None], head.weight.float()[None], dim=2)
    )
    assert head.weight.grad.isfinite().all()
    assert features.grad.isfinite().all()


def test_autocast_does_not_lower_the_precision_of_cosine_logits():
    head = CosineHead(64)
    head.activate([0, 1])
    features = torch.randn(8, 64)
    expected = head(features)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(head(features), expected)


def test_cosine_gradients_are_exact():
    head = CosineHead(3).double()
    head.activate([0, 1])
    assert torch.autograd.gradcheck(head, torch.randn(2, 3, dtype=torch.float64, requires_grad=True))


@pytest.mark.parametrize("rows", [1, 2, 6])
def test_a_state_dict_of_any_size_loads(head, rows):
    saved = type(head)(5, initial_classes=rows)
    saved.activate([0, rows - 1])
    head.adaptation(experience(2))
    head.load_state_dict(saved.state_dict())
    assert head.num_classes == rows
    features = torch.randn(3, 5)
    assert torch.equal(head(features)[:, :rows], saved(features))


def test_a_state_dict_without_this_head_is_reported_as_torch_does(head):
    with pytest.raises(RuntimeError, match="weight"):
        head.load_state_dict({})


def test_parameters_alone_load_without_touching_the_classes(head):
    head.adaptation(experience(0, 4))
    head.load_state_dict(dict(head.named_parameters()), strict=False)
    assert head.active_units.tolist() == [1, 0, 0, 0, 1]


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda head: pickle.loads(pickle.dumps(head))])
def test_copies_carry_rows_masks_and_width(head, duplicate):
    head.adaptation(experience(0, 2))
    head.eval()
    head.adaptation(experience(7))
    features = torch.randn(2, 5)
    assert torch.equal(duplicate(head)(features), head(features))


@pytest.mark.parametrize("size", [1e3, 1e20])
def test_a_class_never_trained_is_not_chosen_however_low_the_scores(size):
    head = LinearHead(2, initial_classes=4)
    head.activate([1, 3])
    head._columns = 6
    with torch.no_grad():
        head.classifier.weight.copy_(torch.tensor([[0, 0], [-4, -5], [0, 0], [-6, -3]]) * size)
        head.classifier.bias.zero_()
    logits = head(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    assert logits.argmax(1).tolist() == [1, 3]
    assert torch.equal(logits[:, [1, 3]], torch.tensor([[-4, -6], [-5, -3]]) * size)
    assert (logits.softmax(1)[:, [0, 2, 4, 5]] == 0).all()
    assert logits.topk(2, dim=1).indices.tolist() == [[1, 3], [3, 1]]


def test_live_classes_are_those_of_each_head_that_masks():
    head = LinearHead(2, initial_classes=5)
    head.activate([4, 1])
    assert live_classes(nn.Sequential(nn.Linear(2, 2), head)) == [[1, 4]]
    assert live_classes(nn.Linear(2, 2)) is None
    assert live_classes(IncrementalClassifier(2, masking=False)) is None
