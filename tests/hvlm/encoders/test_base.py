import numpy as np
import pytest
import torch

from hvlm.encoders.base import BatchRunner, check_clips, is_device_fault
from hvlm.errors import UserError
from hvlm.video.sampling import SamplingConfig
from hvlm.video.views import FrameView

VIEW = FrameView(sampling=SamplingConfig(), clip_frames=2, clip_stride=1, resize=8, crop=8, interpolation="bilinear")


def runner(batch_size):
    return BatchRunner(batch_size=batch_size, dim=2, device=torch.device("cpu"), dtype=torch.float32)


def test_every_row_passes_once_in_order_and_in_batches_of_at_most_batch_size():
    sizes = []

    def forward(batch):
        sizes.append(len(batch))
        return torch.stack([batch.float(), batch.float() * 2], dim=1)

    features = runner(3).run(np.arange(7), forward)
    assert sizes == [3, 3, 1]
    assert features.dtype == np.float32
    np.testing.assert_array_equal(features, np.stack([np.arange(7), 2 * np.arange(7)], axis=1))


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA"), MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")],
    ids=["GPU", "Python", "CPU allocator"],
)
def test_out_of_memory_halves_the_batch_for_good_and_no_row_is_lost_or_doubled(error):
    sizes = []

    def forward(batch):
        sizes.append(len(batch))
        if len(batch) > 3:
            raise error
        return torch.stack([batch.float(), batch.float()], dim=1)

    small = runner(8)
    assert small.run(np.arange(11), forward)[:, 0].tolist() == list(range(11))
    assert sizes == [8, 4, 2, 2, 2, 2, 2, 1]
    sizes.clear()
    small.run(np.arange(3), forward)
    assert sizes == [2, 1]


def test_a_row_that_does_not_fit_alone_and_any_other_error_are_raised():
    def refuse(batch):
        raise torch.OutOfMemoryError("CUDA") if (batch < 9).all() else RuntimeError("shapes")

    with pytest.raises(torch.OutOfMemoryError):
        runner(8).run(np.arange(8), refuse)
    with pytest.raises(RuntimeError, match="shapes"):
        runner(8).run(np.arange(10, 18), refuse)


def test_no_rows_give_no_features():
    assert runner(3).run(np.zeros((0, 4)), lambda batch: batch).shape == (0, 2)


def test_read_only_rows_are_not_changed():
    rows = np.zeros((2, 2), dtype=np.float32)
    rows.flags.writeable = False
    runner(2).run(rows, lambda batch: batch.add_(1))
    assert (rows == 0).all()


def test_overlapping_windows_on_read_only_memory_pass():
    frames = np.arange(6, dtype=np.float32)
    frames.flags.writeable = False
    windows = np.lib.stride_tricks.sliding_window_view(frames, 2)[::-1]
    np.testing.assert_array_equal(runner(2).run(windows, lambda batch: batch), windows)


def test_not_finite_features_are_an_error_with_their_number():
    with pytest.raises(UserError, match="1 of 3 rows"):
        runner(2).run(np.array([[1.0, 1.0], [0.0, 1.0], [2.0, 2.0]]), lambda batch: 1 / batch)


@pytest.mark.parametrize(
    "clips",
    [
        np.zeros((1, 2, 8, 8, 3), dtype=np.float32),
        np.zeros((1, 1, 8, 8, 3), dtype=np.uint8),
        np.zeros((1, 2, 8, 9, 3), dtype=np.uint8),
        np.zeros((2, 8, 8, 3), dtype=np.uint8),
    ],
)
def test_clips_of_another_shape_or_dtype_are_refused(clips):
    with pytest.raises(UserError, match=r"uint8 \(N, 2, 8, 8, 3\)"):
        check_clips(clips, VIEW)


def test_clips_of_the_view_pass():
    check_clips(np.zeros((0, 2, 8, 8, 3), dtype=np.uint8), VIEW)


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (torch.AcceleratorError("CUDA error: device-side assert triggered"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling cublasSgemm"), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("CUDA error: not torch's"), False),
    ],
)
def test_a_fault_of_the_gpu_is_told_from_the_networks(error: Exception, fault: bool):
    assert is_device_fault(error) == fault
