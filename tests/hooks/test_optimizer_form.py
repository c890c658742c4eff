"""The form of an optimizer is that of the run, also when one of another is resumed."""

import copy
from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import OptimWrapper

from mmse.hooks import OptimizerFormHook
from mmse.utils.errors import UserError

FORMS = {'plain': {'foreach': False}, 'foreach': {'foreach': True}}


def step(wrapper: OptimWrapper, model: torch.nn.Linear) -> None:
    wrapper.update_params(model(torch.ones(2, 3)).square().mean())


def make(form: dict[str, bool]) -> tuple[torch.nn.Linear, OptimWrapper]:
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    return model, OptimWrapper(torch.optim.AdamW(model.parameters(), lr=0.1, **form))


@pytest.mark.parametrize('saved', FORMS)
@pytest.mark.parametrize('now', FORMS)
def test_resuming_with_another_form(saved: str, now: str) -> None:
    """The moments come from the checkpoint, the form does not."""
    model, wrapper = make(FORMS[saved])
    step(wrapper, model)
    state = copy.deepcopy({'model': model.state_dict(), 'optimizer': wrapper.state_dict()})
    step(wrapper, model)
    # What a version without the saved form would meet.
    state['optimizer']['param_groups'][0]['fused'] = True

    again, resumed = make(FORMS[now])
    again.load_state_dict(state['model'])
    runner = SimpleNamespace(optim_wrapper=resumed)
    OptimizerFormHook().after_load_checkpoint(runner, state)
    resumed.load_state_dict(state['optimizer'])
    assert resumed.param_groups[0]['foreach'] is FORMS[now]['foreach']
    assert not resumed.param_groups[0]['fused']
    step(resumed, again)
    for one, other in zip(again.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize('wrapper', [None, {'type': 'OptimWrapper'}])
def test_tests_have_no_optimizer(wrapper: object) -> None:
    checkpoint = {'state_dict': {}, 'optimizer': {'param_groups': [{'fused': True}]}}
    OptimizerFormHook().after_load_checkpoint(SimpleNamespace(optim_wrapper=wrapper), checkpoint)
    assert checkpoint['optimizer'] == {'param_groups': [{'fused': True}]}


def rates(*factors: float, lr: float = 0.1) -> OptimWrapper:
    """An optimizer with a group for each factor, after the schedulers were built."""
    groups = [
        {'params': [torch.nn.Parameter(torch.ones(1))], 'lr': lr * f, 'initial_lr': lr * f}
        for f in factors
    ]
    return OptimWrapper(torch.optim.SGD(groups, lr=lr))


def test_factors_of_the_learning_rate_that_resuming_would_undo() -> None:
    saved = {'optimizer': copy.deepcopy(rates(1, 1, 1).state_dict())}
    for group in saved['optimizer']['param_groups']:
        group['lr'] *= 0.01  # later in the schedule
    hook = OptimizerFormHook()
    hook.after_load_checkpoint(SimpleNamespace(optim_wrapper=rates(1, 1, 1)), saved)
    # Scaled for more GPUs, as a whole.
    hook.after_load_checkpoint(SimpleNamespace(optim_wrapper=rates(1, 1, 1, lr=0.4)), saved)
    with pytest.raises(UserError, match='resuming takes the learning rates of the checkpoint'):
        hook.after_load_checkpoint(SimpleNamespace(optim_wrapper=rates(1, 10, 1)), saved)
