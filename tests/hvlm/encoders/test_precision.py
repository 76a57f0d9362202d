import pytest
import torch

from hvlm.encoders.precision import inference, resolve_device, resolve_precision, stated_precision
from hvlm.errors import UserError

CPU = torch.device("cpu")


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_auto_is_fp32_on_every_device_and_is_stated_as_such(device):
    """A device name suffices: nothing here asks what the GPU can do."""
    assert resolve_precision("auto", torch.device(device)) == torch.float32
    assert (stated_precision("auto"), stated_precision("bf16")) == ("fp32", "bf16")
    assert resolve_precision("bf16", torch.device(device)) == torch.bfloat16


def test_fp16_on_a_cpu_is_refused():
    with pytest.raises(UserError, match="precision: auto"):
        resolve_precision("fp16", CPU)


def test_unknown_device_is_refused():
    with pytest.raises(UserError, match="'cpu' or 'cuda'"):
        resolve_device("gpu0")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_absent_gpu_is_refused():
    with pytest.raises(UserError, match="0 GPUs visible"):
        resolve_device("cuda")


def test_inference_calculates_without_gradients_in_the_asked_format():
    weight = torch.ones(2, 2, requires_grad=True)
    with inference(torch.bfloat16, CPU):
        product = weight @ weight
    assert product.dtype == torch.bfloat16 and not product.requires_grad
    with inference(torch.float32, CPU):
        assert (weight @ weight).dtype == torch.float32


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_gpu_formats():
    device = resolve_device("cuda")
    matrix = torch.ones(16, 16, device=device)
    with inference(resolve_precision("bf16", device), device):
        assert (matrix @ matrix).dtype == torch.bfloat16
    with inference(torch.float32, device):
        assert not torch.backends.cudnn.allow_tf32
