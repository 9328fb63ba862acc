"""Memory of outputs is used again, and never while somebody has the former output."""

import copy
import pickle

import torch

from panoptic_fpn_ext.modeling.postprocessing import OutputMemory

CPU = torch.device("cpu")


def _filled(memory: OutputMemory, value: float, *shape: int, name: str = "logits") -> torch.Tensor:
    return memory.empty(name, shape, torch.float32, CPU).fill_(value)


def test_memory_is_used_again_once_nobody_has_the_output():
    memory = OutputMemory()
    first = _filled(memory, 1.0, 3, 40, 50)
    address = first.data_ptr()
    del first
    smaller = _filled(memory, 2.0, 3, 30, 50)
    assert smaller.data_ptr() == address and smaller.shape == (3, 30, 50) and smaller.is_contiguous()


def test_an_output_that_somebody_has_stays_as_it_is():
    memory = OutputMemory()
    whole = _filled(memory, 1.0, 4, 4)
    kept = [whole.numpy(), whole[1:], whole.T.unbind(), {"sem_seg": whole.detach()}]
    del whole
    while kept:
        _filled(memory, 2.0, 4, 4)
        last = kept.pop()
        found = last["sem_seg"] if isinstance(last, dict) else last[0]
        assert (torch.as_tensor(found) == 1).all()
        assert _filled(memory, 3.0, 4, 4).eq(3).all()
        assert (torch.as_tensor(found) == 1).all()


def test_another_name_and_a_much_smaller_output_have_their_own():
    memory = OutputMemory()
    large = _filled(memory, 1.0, 100)
    assert _filled(memory, 2.0, 100, name="masks").data_ptr() != large.data_ptr()
    del large
    _filled(memory, 1.0, 10)
    assert memory._kept["logits"][0].numel() == 40


def test_empty_outputs_and_other_types():
    memory = OutputMemory()
    for _ in range(2):
        assert memory.empty("masks", (0, 5, 5), torch.bool, CPU).zero_().shape == (0, 5, 5)
        assert memory.empty("labels", (5, 5), torch.int32, CPU).fill_(-7).sum() == -175


def test_copies_are_empty():
    memory = OutputMemory()
    _filled(memory, 1.0, 8)
    assert not copy.deepcopy(memory)._kept and not pickle.loads(pickle.dumps(memory))._kept
    memory.clear()
    assert not memory._kept
