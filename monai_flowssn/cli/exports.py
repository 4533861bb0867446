"""Exports of a network, each tried before it is told of."""

from __future__ import annotations

import contextlib
import io
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

__all__ = ["export"]


@torch.no_grad()
def export(network: nn.Module, image: Tensor, into: Path) -> dict[str, str]:
    """Write ``model.ts`` (TorchScript, traced) and ``model.onnx`` where they work; return by kind what came of it.

    Both make one draw of one image of this size per call, with randomness of their own. The traced one has to be what the
    network is on another image and the same seed; the ONNX one, in onnxruntime, probabilities that differ from call to call where
    those of the network do.

    Args:
        network: in evaluation mode, image (1, C, *S) -> one draw (1, K, *S).
        image: of the size that is exported.
        into: a folder.
    """
    into.mkdir(parents=True, exist_ok=True)
    told = {}
    for kind, name, attempt in (("TorchScript", "model.ts", _trace), ("ONNX", "model.onnx", _onnx)):
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            try:
                attempt(network, image, Path(folder, name))
            except ModuleNotFoundError as error:
                told[kind] = f"not tried ({error})"
                continue
            except Exception as error:  # of any kind, by two compilers
                told[kind] = f"none ({type(error).__name__}: {' '.join(str(error).split())[:100]})"
                continue
            for part in Path(folder).iterdir():  # large ONNX models are two files
                shutil.copy(part, into / part.name)
        told[kind] = f"{into.name}/{name}"
    return told


def _trace(network: nn.Module, image: Tensor, path: Path) -> None:
    torch.jit.save(torch.jit.trace(network, image, check_trace=False), path)  # which would compare two draws
    traced, other = torch.jit.load(path), torch.randn_like(image)
    torch.testing.assert_close(_seeded(traced, other), _seeded(network, other), rtol=1e-4, atol=1e-4)


def _seeded(network: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return network(image)


def _onnx(network: nn.Module, image: Tensor, path: Path) -> None:
    import onnxruntime  # not ours; nor is onnxscript, which torch needs

    torch.onnx.export(network, (image,), path, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(path)
    other = torch.randn_like(image)
    draws = [torch.as_tensor(session.run(None, {session.get_inputs()[0].name: other.numpy()})[0]) for _ in range(2)]
    expected = [network(other) for _ in range(2)]
    torch.testing.assert_close(draws[0].sum(1), torch.ones_like(draws[0][:, 0]), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(draws[0].shape, expected[0].shape)
    if torch.equal(*draws) != torch.equal(*expected):
        raise ValueError("its draws are not as random as those of the network")
