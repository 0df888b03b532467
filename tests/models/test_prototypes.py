"""Prototype heads: nearest class mean and RanPAC, against independent computations."""

import pytest
import torch
from sklearn.linear_model import Ridge
from torch.nn.functional import cosine_similarity, one_hot

from ftp_cl.models import NearestMeanHead, RandomProjectionHead
from ftp_cl.models.prototypes import _best_ridge, _held_out


def features_and_targets(seed=0, count=60):
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(3).repeat(count // 3)
    return torch.randn(count, 5, generator=generator) + targets[:, None], targets


def test_nearest_mean_scores_cosines_to_the_means_of_all_parts():
    features, targets = features_and_targets()
    head = NearestMeanHead(5, scale=1.0)
    for part in (slice(0, 20), slice(20, 60)):
        head.update(features[part], targets[part])
    means = torch.stack([features[targets == label].mean(0) for label in range(3)])
    expected = torch.stack([cosine_similarity(features, mean[None]) for mean in means], dim=1)
    torch.testing.assert_close(head(features), expected)


def test_ranpac_equals_scikit_learns_ridge_and_parts_equal_the_whole():
    features, targets = features_and_targets()
    whole, parts = RandomProjectionHead(5, 40), RandomProjectionHead(5, 40)
    whole.update(features, targets)
    for part in (slice(0, 25), slice(25, 60)):
        parts.update(features[part], targets[part])
    parts.ridge.copy_(whole.ridge)
    hidden = (features.double() @ whole.projection.double()).relu()
    ridge = Ridge(alpha=whole.ridge.item(), fit_intercept=False).fit(hidden, one_hot(targets).double())
    expected = torch.from_numpy(ridge.predict(hidden)).float()
    torch.testing.assert_close(whole(features), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(parts(features), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [30, 200])  # of the random features: fewer than images, and more
def test_ranpac_chooses_the_ridge_that_predicts_the_held_out_images_best(size):
    features, targets = features_and_targets()
    projection = torch.randn(5, size, generator=torch.Generator().manual_seed(1)).double()
    hidden, labels = (features.double() @ projection).relu(), one_hot(targets).double()
    held = torch.arange(60) % 7 == 4
    errors = {}
    for exponent in range(-8, 9):
        model = Ridge(alpha=10.0**exponent, fit_intercept=False, solver="svd").fit(hidden[~held], labels[~held])
        errors[exponent] = ((torch.from_numpy(model.predict(hidden[held])) - labels[held]) ** 2).mean().item()
    assert _best_ridge(hidden, labels, held).item() == pytest.approx(10.0 ** min(errors, key=errors.get))


@pytest.mark.parametrize("counts", [[10, 5, 5], [4, 4, 4], [1, 2, 23], [1, 1, 1]])
def test_a_fifth_of_each_class_is_held_out_in_any_order_and_nothing_is_drawn_from_the_global_generator(counts):
    expected = [0 if count == 1 else max(1, round(count / 5)) for count in counts]
    targets = torch.arange(3).repeat_interleave(torch.tensor(counts))
    before = torch.get_rng_state()
    for order in (torch.arange(len(targets)), torch.randperm(len(targets), generator=torch.Generator().manual_seed(1))):
        assert targets[order][_held_out(targets[order])].bincount(minlength=3).tolist() == expected
    assert torch.equal(torch.get_rng_state(), before)


def test_of_lambdas_that_differ_by_rounding_the_largest_is_taken():
    # H H^T is 1e10 I, so that the fit is hidden / (1e10 + lambda): the same for all small ones, but for rounding.
    hidden, labels = 1e5 * torch.eye(3).double().repeat(2, 1), torch.eye(3).double().repeat(2, 1)
    held = torch.tensor([False] * 3 + [True] * 3)
    labels[3:, 0] += 0.1
    errors = {
        10.0**e: ((hidden[3:] @ hidden[:3] / (1e10 + 10.0**e) - labels[3:]) ** 2).mean().item() for e in range(-8, 9)
    }
    least = min(errors.values())
    expected = max(ridge for ridge, error in errors.items() if error <= least * (1 + 1e-6))
    assert _best_ridge(hidden, labels, held).item() == expected > 1e-8


def test_ranpac_with_a_lambda_below_rounding_is_the_least_fit_to_the_images_that_it_knows():
    torch.manual_seed(0)  # of the head's projection, too
    features = 1e4 * torch.randn(150, 20)
    known, new = features[:100], features[100:]
    targets = torch.arange(100) % 3
    head = RandomProjectionHead(20, 400)
    head.update(known, targets)
    head.ridge.fill_(1e-12)
    hidden, seen = ((part.double() @ head.projection.double()).relu() for part in (new, known))
    expected = hidden @ torch.linalg.pinv(seen) @ one_hot(targets).double()
    # 20 draws were off by 0.6e-3 to 1.1e-3, and by hundreds without the floor.
    torch.testing.assert_close(head(new), expected.float(), rtol=0, atol=2e-3)


def test_ranpac_meets_no_order_of_the_classes():
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(5).repeat(20)  # in turn: every fifth image is of class 4
    features = 3 * torch.eye(5)[targets] + torch.randn(100, 5, generator=generator)
    head = RandomProjectionHead(5, 60)
    head.update(features, targets)
    assert 1e-2 <= head.ridge.item() <= 1e6
    head.update(torch.randn(5, 5, generator=generator), torch.arange(5))  # one image a class: nothing to hold out
    assert 1e-2 <= head.ridge.item() <= 1e6


@pytest.mark.parametrize("make", [NearestMeanHead, lambda d: RandomProjectionHead(d, 20)])
def test_prototype_heads_mask_classes_not_seen_and_survive_a_state_dict(make):
    features, targets = features_and_targets()
    head, again = make(5), make(5)
    head.update(features, targets * 2)
    logits = head(features)
    assert (logits[:, [1, 3]] == -1000).all() and (logits.argmax(1) == targets * 2).float().mean() > 0.5
    again.load_state_dict(head.state_dict())
    assert torch.equal(again(features), logits)
