"""The methods next to FTP: SPD, fixed radius, penalties, TPGM; against published trajectories or literal versions."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.func import functional_call

from ftp_cl.optim import TPGM, AdamSPD, AnchoredSteps, FixedRadius, SelectiveDecay, l2_sp, mars_sp
from ftp_cl.optim.post_hoc import project_post_hoc


def adam_spd(golden, parameters, **options):
    anchors = golden.anchors()
    groups = [{"params": list(parameters.values()), "pre": [anchors[name] for name in parameters]}]
    return AdamSPD(groups, lr=3e-3, weight_decay=0.5, **options)


def follow(golden, parameters, optimizer, first, last):
    gradients, expected = golden.gradients(), golden.weights("adam_spd")
    for step in range(first, last):
        for name, parameter in parameters.items():
            parameter.grad = gradients[name][step].clone()
        optimizer.step()
        for name, parameter in parameters.items():
            golden.assert_close(parameter, expected[name][step], f"{name}, step {step + 1}")


@pytest.mark.parametrize("options", [{"foreach": False}, {"foreach": True}, {"fused": True}])
def test_adam_spd_follows_the_published_trajectory(golden, options):
    parameters = golden.parameters()
    follow(golden, parameters, adam_spd(golden, parameters, **options), 0, 40)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_a_copy_of_adam_spd_goes_on(golden, copied):
    parameters = golden.parameters()
    optimizer = adam_spd(golden, parameters)
    follow(golden, parameters, optimizer, 0, 10)
    parameters, optimizer = copied((parameters, optimizer))
    follow(golden, parameters, optimizer, 10, 40)


def test_adam_spd_resumes_from_its_state_dict_with_its_anchors(golden):
    parameters = golden.parameters()
    optimizer = adam_spd(golden, parameters)
    follow(golden, parameters, optimizer, 0, 10)
    again = AdamSPD([{"params": list(parameters.values())}], lr=1.0)
    again.load_state_dict(optimizer.state_dict())
    follow(golden, parameters, again, 10, 40)


def test_selective_decay_attached_to_adam_is_adam_spd(golden):
    parameters, anchors = golden.parameters(), golden.anchors()
    optimizer = torch.optim.AdamW(parameters.values(), lr=3e-3, weight_decay=0.0)
    AnchoredSteps(SelectiveDecay(0.5), {parameters[n]: anchors[n] for n in parameters}).attach(optimizer)
    follow(golden, parameters, optimizer, 0, 40)


def test_a_group_without_anchors_is_plain_adam_and_another_number_of_anchors_is_refused():
    ours, plain = (nn.Parameter(torch.arange(4.0)) for _ in range(2))
    optimizers = AdamSPD([ours], lr=0.1, weight_decay=1.0), torch.optim.Adam([plain], lr=0.1)
    for _ in range(5):
        for weights, optimizer in zip((ours, plain), optimizers, strict=True):
            weights.grad = torch.ones(4)
            optimizer.step()
    assert torch.equal(ours, plain)
    with pytest.raises(ValueError, match='1 "params" but 2 "pre"'):
        AdamSPD([{"params": [ours], "pre": [ours, plain]}])


def test_adam_spd_follows_a_scheduled_decay_and_refuses_one_to_zero():
    weights = nn.Parameter(torch.tensor([3.0, 4.0]))
    optimizer = AdamSPD([{"params": [weights], "pre": [torch.zeros(2)]}], lr=0.1, weight_decay=1.0)

    def step(gradient):
        weights.grad = torch.tensor(gradient)
        optimizer.step()

    step([-1.0, -1.0])
    optimizer.param_groups[0]["selective_decay"] = 0.0
    moved = weights.detach().norm()
    step([0.01, 0.01])  # points back, while momentum goes on
    assert weights.detach().norm() > moved + 0.01
    optimizer.param_groups[0]["weight_decay"] = 0.1
    with pytest.raises(ValueError, match=r"weight_decay=0.1.*selective_decay"):
        step([0.0, 0.0])


def test_adam_spd_keeps_each_anchor_once(reachable):
    weights = nn.Parameter(torch.ones(2, 3))
    optimizer = AdamSPD([{"params": [weights], "pre": [torch.full((2, 3), 7.0)]}])
    weights.grad = torch.ones(2, 3)
    optimizer.step()
    tensors = [each for each in reachable(optimizer) if isinstance(each, torch.Tensor) and each.shape == (2, 3)]
    assert [(each == 7).all().item() for each in tensors].count(True) == 1


def test_adam_spd_takes_a_state_with_the_published_keys():
    weights = [nn.Parameter(torch.ones(2)) for _ in range(2)]
    saved, optimizer = AdamSPD([weights[0]], weight_decay=0.3).state_dict(), AdamSPD([weights[1]])
    group = saved["param_groups"][0]
    group["weight_decay"], group["pre"] = group.pop("selective_decay"), None
    optimizer.load_state_dict(saved)
    weights[1].grad = torch.ones(2)
    optimizer.step()
    assert optimizer.param_groups[0]["selective_decay"] == 0.3 and optimizer.param_groups[0]["pre"] == []


def test_anchors_follow_their_weights_to_another_dtype():
    weights = nn.Parameter(torch.tensor([3.0, 4.0]))
    optimizer = torch.optim.SGD([weights], lr=0.0)
    AnchoredSteps(FixedRadius(0.7), {weights: torch.zeros(2)}).attach(optimizer)
    weights.data = weights.data.double()
    weights.grad = torch.zeros(2).double()
    optimizer.step()
    assert weights.tolist() == pytest.approx([0.3, 0.4])


def test_selective_decay_takes_back_by_hand():
    weights = nn.Parameter(torch.tensor([3.0, 4.0]))  # at distance 5 from the anchor 0
    optimizer = torch.optim.SGD([weights], lr=0.0)
    AnchoredSteps(SelectiveDecay(0.5), {weights: torch.zeros(2)}).attach(optimizer)
    for gradient in (torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 0.0])):
        weights.grad = gradient
        optimizer.step()
    assert weights.tolist() == [3.0, 4.0], "no step, so no distance was added"
    rule, moved = SelectiveDecay(0.5), torch.tensor([6.0, 8.0])
    rule.after(moved, torch.zeros(2), rule.before(weights.detach(), torch.zeros(2), torch.tensor([1.0, 0.0])))
    assert moved.tolist() == pytest.approx([4.5, 6.0]), "half of the distance is new, and half of that goes"
    rule.after(moved, torch.zeros(2), rule.before(weights.detach(), torch.zeros(2), torch.tensor([-1.0, 0.0])))
    assert moved.tolist() == pytest.approx([4.5, 6.0]), "the gradient leads away: nothing is taken back"


def test_fixed_radius_shortens_long_rows_only():
    weights = nn.Parameter(torch.tensor([[1.0, -1.0], [0.1, 0.2]]))
    optimizer = torch.optim.SGD([weights], lr=0.0)
    steps = AnchoredSteps(FixedRadius(0.5), {weights: torch.zeros(2, 2)}).attach(optimizer)
    weights.grad = torch.zeros(2, 2)
    optimizer.step()
    torch.testing.assert_close(weights.detach(), torch.tensor([[0.25, -0.25], [0.1, 0.2]]))
    steps.detach()
    with torch.no_grad():
        weights.fill_(1.0)
    optimizer.step()
    assert (weights == 1).all()


def test_penalties_by_hand():
    weights = {"a": nn.Parameter(torch.tensor([[1.0, 2.0], [0.0, -4.0]])), "b": nn.Parameter(torch.tensor([3.0, 0.0]))}
    anchor = {"a": torch.tensor([[0.0, 2.0], [0.0, 0.0]]), "b": torch.tensor([1.0, 1.0])}
    assert l2_sp(weights, anchor).item() == pytest.approx(0.5 * (1 + 16 + 4 + 1))
    assert mars_sp(weights, anchor).item() == pytest.approx(4 + 3)
    mars_sp(weights, anchor).backward()
    assert weights["a"].grad.tolist() == [[0.0, 0.0], [0.0, -1.0]], "the longest row alone is pulled"
    assert weights["b"].grad.tolist() == [1.0, -1.0]
    assert l2_sp({}, {}) == 0.0


# ---- TPGM -----------------------------------------------------------------------------------------------------------


def small_model():
    return nn.Sequential(nn.Conv2d(1, 3, 2), nn.Flatten(), nn.Linear(12, 3)).double()


class LiteralTPGM:
    """The published procedure, with autograd for the radii: the projected weights are a function of them."""

    def __init__(self, model):
        self.model = model
        self.anchor = {name: p.detach().clone() for name, p in model.named_parameters()}
        self.radii = None

    def ratio(self, name, change):
        if change.dim() == 4:
            norms = change.abs().sum(dim=(1, 2, 3), keepdim=True)
        elif change.dim() == 2:
            norms = change.abs().sum(dim=1, keepdim=True)
        else:
            norms = change.abs()
        radius = self.radii[name]
        with torch.no_grad():
            if self.new:
                radius.copy_(norms.min() / 2)
            if radius <= 0:
                radius.fill_(1e-8)
            if (radius / (norms + 1e-8)).min() > 1:
                radius.copy_(norms.max())
        return nn.functional.hardtanh(radius.relu() / (norms + 1e-8), 0, 1)

    def projected(self):
        changes = {name: p.detach() - self.anchor[name] for name, p in self.model.named_parameters()}
        return {name: self.anchor[name] + self.ratio(name, change) * change for name, change in changes.items()}

    def step(self, images, targets):
        self.new = self.radii is None
        if self.new:
            self.radii = {name: torch.zeros(1, dtype=torch.float64, requires_grad=True) for name in self.anchor}
            self.adam = torch.optim.Adam(self.radii.values(), lr=1e-2)
        loss = nn.functional.cross_entropy(functional_call(self.model, self.projected(), (images,)), targets)
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()
        self.new = False
        self.project()

    @torch.no_grad()
    def project(self):
        for name, value in self.projected().items():
            self.model.get_parameter(name).copy_(value)


def test_tpgm_equals_the_published_procedure_step_by_step():
    torch.manual_seed(0)
    ours = small_model()
    literal = copy.deepcopy(ours)
    tpgm = TPGM(dict(ours.named_parameters()), {n: p.detach().clone() for n, p in ours.named_parameters()})
    reference = LiteralTPGM(literal)
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9) for model in (ours, literal)]
    for step in range(12):
        train, held_out = ((torch.randn(8, 1, 3, 3).double(), torch.randint(3, (8,))) for _ in range(2))
        for model, optimizer in zip((ours, literal), optimizers, strict=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(train[0]), train[1]).backward()
            optimizer.step()
        if step % 3 == 2:  # proj_freq
            tpgm.project()
            reference.project()
        else:
            tpgm.learn(lambda batch=held_out: nn.functional.cross_entropy(ours(batch[0]), batch[1]))
            tpgm.project()
            reference.step(*held_out)
        torch.testing.assert_close(tpgm.radii, torch.cat([r.detach() for r in reference.radii.values()]))
        for mine, theirs in zip(ours.parameters(), literal.parameters(), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)
    assert set(tpgm.summary()) == {name for name, _ in ours.named_parameters()}


def test_tpgm_once_from_the_same_radius_equals_project_once():
    torch.manual_seed(1)
    models = [nn.Linear(5, 4, bias=False)]
    anchor = {"weight": models[0].weight.detach().clone()}
    with torch.no_grad():
        models[0].weight.add_(0.3 * torch.randn(4, 5))
    models.append(copy.deepcopy(models[0]))
    images, targets = torch.randn(16, 5), torch.randint(4, (16,))
    losses = [lambda model=model: nn.functional.cross_entropy(model(images), targets) for model in models]
    tpgm = TPGM({"weight": models[0].weight}, anchor)
    tpgm._bounded([(models[0].weight.detach() - anchor["weight"]).abs().sum(1, keepdim=True)])
    tpgm.radii.fill_(1e-8)
    tpgm.learn(losses[0], 30)
    tpgm.project()
    project_post_hoc({"weight": models[1].weight}, anchor, losses[1], iterations=30)
    torch.testing.assert_close(models[0].weight, models[1].weight, rtol=1e-5, atol=1e-6)


def in_any_layout(values):
    """The same numbers: as they are, with the rows innermost in memory, with gaps."""
    return values.clone(), values.transpose(0, 1).contiguous().transpose(0, 1), torch.stack([values] * 2, -1)[..., 0]


@pytest.mark.parametrize("values", [torch.tensor([[1.0, -1, 2], [0, 0.1, 0.2]]), torch.arange(24.0).view(2, 3, 2, 2)])
def test_weights_in_any_memory_layout_are_projected_alike(values):
    norms = values.flatten(1).abs().sum(dim=1)

    def shortened(radius):
        return values * torch.minimum(radius / norms, torch.ones(2)).view(-1, *[1] * (values.dim() - 1))

    for layout in range(3):
        for anchor in in_any_layout(torch.zeros_like(values)):
            weights = nn.Parameter(in_any_layout(values)[layout])
            optimizer = torch.optim.SGD([weights], lr=0.0)
            AnchoredSteps(FixedRadius(0.5), {weights: anchor}).attach(optimizer)
            weights.grad = torch.zeros_like(weights)
            assert mars_sp({"w": weights}, {"w": anchor}).item() == pytest.approx(norms.max().item())
            optimizer.step()
            torch.testing.assert_close(weights.detach(), shortened(0.5))
            weights = nn.Parameter(in_any_layout(values)[layout])
            table = project_post_hoc({"w": weights}, {"w": anchor}, lambda w=weights: -w.abs().sum(), iterations=20)
            # Rows move out at a constant rate, and Adam's steps are 0.01 then, up to where the shorter row ends.
            assert table["w"]["radius"] == pytest.approx(0.2, rel=1e-3)
            torch.testing.assert_close(weights.detach(), shortened(table["w"]["radius"]), rtol=1e-5, atol=1e-6)


def test_anchors_are_the_weights_as_they_were_given():
    weights = nn.Parameter(torch.tensor([[3.0, 4.0]]))
    optimizer = torch.optim.SGD([weights], lr=1.0)
    AnchoredSteps(FixedRadius(0.7), {weights: weights.detach()}).attach(optimizer)
    tpgm = TPGM({"w": weights}, {"w": weights.detach()})
    spd = AdamSPD([{"params": [weights], "pre": [weights.detach()]}])
    weights.grad = torch.tensor([[1.0, 1.0]])
    optimizer.step()
    assert weights.tolist()[0] == pytest.approx([2.65, 3.65])
    assert tpgm.anchor[0].tolist() == spd.param_groups[0]["pre"][0].tolist() == [[3.0, 4.0]]


def test_adam_spd_keeps_its_anchors_where_a_state_of_plain_adam_has_none():
    weights = [nn.Parameter(torch.ones(2)) for _ in range(2)]
    saved = torch.optim.Adam([weights[0]], lr=0.5, weight_decay=0.1).state_dict()
    optimizer = AdamSPD([{"params": [weights[1]], "pre": [torch.zeros(2)]}], weight_decay=0.3)
    optimizer.load_state_dict(saved)
    group = optimizer.param_groups[0]
    assert (group["lr"], group["selective_decay"], group["weight_decay"]) == (0.5, 0.3, 0.0)
    assert torch.equal(group["pre"][0], torch.zeros(2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_tpgm_takes_norms_and_radii_of_half_precision_weights_in_float32(dtype):
    weights = {"w": nn.Parameter(torch.ones(2, 2, dtype=dtype)), "b": nn.Parameter(torch.tensor([0.0, 1.0]).to(dtype))}
    tpgm = TPGM(weights, {"w": torch.zeros(2, 2, dtype=dtype), "b": torch.zeros(2, dtype=dtype)})
    tpgm.learn(lambda: weights["w"].sum() + weights["b"].sum(), iterations=3)
    tpgm.project()
    assert tpgm.radii.dtype == torch.float32 and tpgm.radii[0] == pytest.approx(1 - 3e-2, rel=1e-3)
    assert weights["b"][0] == 0 and all(torch.isfinite(weight).all() for weight in weights.values())


def test_project_once_touches_no_gradient():
    free, weights = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2, 3))
    free.grad, weights.grad = torch.full((3,), 2.0), torch.full((2, 3), 4.0)
    project_post_hoc({"w": weights}, {"w": torch.zeros(2, 3)}, lambda: (weights * free).sum(), iterations=2)
    assert (free.grad == 2).all() and (weights.grad == 4).all() and weights.detach().abs().max() < 1


def test_tpgm_leaves_weights_as_they_were_where_the_loss_is_not_finite():
    weights = nn.Parameter(torch.ones(2, 2))
    tpgm = TPGM({"w": weights}, {"w": torch.zeros(2, 2)})
    with pytest.raises(ValueError, match="not finite"):
        tpgm.learn(lambda: weights.sum() * float("nan"))
    assert (weights == 1).all() and weights.grad is None
