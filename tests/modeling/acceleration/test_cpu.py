"""Memory that stays."""

import threading

import torch

from panoptic_fpn_ext.modeling.acceleration import cpu
from panoptic_fpn_ext.modeling.acceleration.cpu import scratch


def test_it_is_the_same_memory_until_more_is_needed():
    large = scratch(3, 40)
    small = scratch(2, 5, 7)
    assert small.shape == (2, 5, 7) and small.is_contiguous() and small.dtype == torch.float32
    assert small.data_ptr() == large.data_ptr()
    assert scratch(1, 2**20).numel() == 2**20


def test_large_pieces_are_not_kept(monkeypatch):
    kept = scratch(10)
    monkeypatch.setattr(cpu, "_MOST_KEPT", 4 * 10)
    first, second = scratch(11), scratch(11)
    assert len({kept.data_ptr(), first.data_ptr(), second.data_ptr()}) == 3


def test_each_thread_has_its_own():
    here, there = scratch(10), []
    thread = threading.Thread(target=lambda: there.append(scratch(10)))
    thread.start()
    thread.join()
    assert here.data_ptr() != there[0].data_ptr()


def test_inference_mode_leaves_no_trace():
    with torch.inference_mode():
        scratch(2**21).zero_()
    scratch(10).zero_().add_(1)
