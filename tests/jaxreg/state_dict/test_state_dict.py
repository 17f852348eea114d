"""Weights to and from PyTorch, and through files that either side reads."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.torch
import torch
from flax import nnx

import jaxreg
from jaxreg import state_dict


class Net(nnx.Module):
    """Named out of alphabetical order, with a parameter of its own and layers in layers."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.zeta = jaxreg.Linear(3, 4, rngs=rngs)
        self.scale = nnx.Param(jnp.ones((4, 2)))
        self.act = nnx.Dropout(0.5, rngs=rngs)
        self.alpha = nnx.Sequential(
            jaxreg.Linear(4, 4, use_bias=False, rngs=rngs), nnx.relu, nnx.Linear(4, 1, rngs=rngs)
        )
        self.more = nnx.List([jaxreg.Linear(1, 1, rngs=rngs)])

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.alpha(self.zeta(x))


class TorchNet(torch.nn.Module):
    """The same in PyTorch."""

    def __init__(self) -> None:
        super().__init__()
        self.zeta = torch.nn.Linear(3, 4)
        self.scale = torch.nn.Parameter(torch.zeros(4, 2))
        self.act = torch.nn.Dropout(0.5)
        self.alpha = torch.nn.Sequential(torch.nn.Linear(4, 4, bias=False), torch.nn.ReLU(), torch.nn.Linear(4, 1))
        self.more = torch.nn.ModuleList([torch.nn.Linear(1, 1)])

    def forward(self, x: torch.Tensor) -> Any:
        return self.alpha(self.zeta(x))


def _net() -> Net:
    return Net(nnx.Rngs(0))


def test_names_order_and_layout_are_pytorchs() -> None:
    ours, theirs = state_dict.export(_net()), TorchNet()
    expected = dict(theirs.named_parameters())
    assert list(ours) == list(expected)
    assert {name: array.shape for name, array in ours.items()} == {n: tuple(p.shape) for n, p in expected.items()}
    assert all(array.flags.c_contiguous and array.flags.writeable for array in ours.values())


def test_from_pytorch_and_back_the_predictions_are_the_same() -> None:
    theirs, model = TorchNet(), _net()
    before = state_dict.export(model)
    loaded = state_dict.load(model, theirs.state_dict())
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    expected = theirs(torch.from_numpy(x)).detach().numpy()
    # Three products of at most five terms each, on each side, through weights of at most 1 (and 1/sqrt(3) before them).
    assert abs(np.asarray(loaded(jnp.asarray(x))) - expected).max() <= 2 * 15 * 2.0**-24 * 4 * 4 * 5 * abs(x).max()
    for name, array in state_dict.export(loaded).items():
        assert array.tolist() == theirs.state_dict()[name].tolist()
    assert all((array == state_dict.export(model)[name]).all() for name, array in before.items())


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_files_go_both_ways(tmp_path: Path, dtype: str) -> None:
    with jax.enable_x64(True):
        rngs = nnx.Rngs(0)
        layers = [jaxreg.Linear(3, 2, param_dtype=dtype, rngs=rngs), jaxreg.Linear(2, 1, param_dtype=dtype, rngs=rngs)]
        model = nnx.Sequential(*layers)
        kind = getattr(torch, dtype)
        theirs = torch.nn.Sequential(torch.nn.Linear(3, 2, dtype=kind), torch.nn.Linear(2, 1, dtype=kind))
        state_dict.save_file(model, tmp_path / "ours")
        theirs.load_state_dict(safetensors.torch.load_file(tmp_path / "ours"))
        for name, array in state_dict.export(model).items():
            assert theirs.state_dict()[name].double().tolist() == array.astype(np.float64).tolist()
        again = torch.nn.Sequential(torch.nn.Linear(3, 2, dtype=kind), torch.nn.Linear(2, 1, dtype=kind))
        safetensors.torch.save_file(again.state_dict(), tmp_path / "theirs")
        loaded = state_dict.load(model, state_dict.load_file(tmp_path / "theirs"))
        for name, array in state_dict.export(loaded).items():
            assert array.dtype == dtype
            assert again.state_dict()[name].double().tolist() == array.astype(np.float64).tolist()


def test_arrays_of_any_layout_and_library(tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "transposed": np.arange(6.0).reshape(2, 3).T,
        "stepped": np.arange(10)[::3],
        "other end": np.arange(3, dtype=">f4"),
        "scalar": np.float32(2),
        "nothing": np.zeros((0, 3)),
        "torch": torch.arange(6).reshape(2, 3).t(),
        "jax": jnp.ones((2, 2), jnp.bfloat16),
    }
    state_dict.save_file(given, tmp_path / "file")
    loaded = state_dict.load_file(tmp_path / "file")
    assert loaded.keys() == given.keys()
    for name, array in loaded.items():
        assert array.tolist() == np.asarray(given[name]).tolist()
    assert safetensors.torch.load_file(tmp_path / "file")["transposed"].tolist() == given["transposed"].tolist()


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model"
    state_dict.save_file({"a": np.ones(2)}, path)

    def fail(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        state_dict.save_file({"a": np.zeros(2)}, path)
    assert state_dict.load_file(path)["a"].tolist() == [1, 1]
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


def test_every_mismatch_is_listed_in_one_error() -> None:
    model = nnx.Sequential(jaxreg.Linear(3, 2, rngs=nnx.Rngs(0)), jaxreg.Linear(2, 2, rngs=nnx.Rngs(0)))
    given = state_dict.export(model)
    del given["1.bias"]
    given["0.weight"] = given["0.weight"].T
    given["0.bias"] = given["0.bias"].astype(np.float64)
    given["2.weight"] = np.ones(1)
    with pytest.raises(jaxreg.ArgumentError) as error:
        state_dict.load(model, given)
    assert str(error.value).splitlines() == [
        "cannot load the parameters:",
        "- '1.bias' is missing",
        "- '2.weight' is no parameter of the model",
        "- '0.weight' must have shape (2, 3), got (3, 2); PyTorch keeps (out, in)",
        "- '0.bias' must have dtype float32, got float64",
    ]


def test_what_has_no_known_layout() -> None:
    model = nnx.Sequential(nnx.Conv(1, 1, (3,), rngs=nnx.Rngs(0)))
    with pytest.raises(jaxreg.ArgumentError, match=r"known for flax.nnx.Linear alone .* got Conv at 'layers.0'"):
        state_dict.export(model)


def test_shared_parameters_have_no_single_name() -> None:
    layer = jaxreg.Linear(2, 2, rngs=nnx.Rngs(0))
    with pytest.raises(jaxreg.ArgumentError, match=r"'0.weight' and '1.weight' are one parameter"):
        state_dict.export(nnx.Sequential(layer, layer))


def test_wrong_arguments(tmp_path: Path) -> None:
    (tmp_path / "junk").write_bytes(b"no safetensors")
    wrong: Any = [1]
    with pytest.raises(jaxreg.ArgumentError, match=r"junk must be a safetensors file, and is not or is damaged"):
        state_dict.load_file(tmp_path / "junk")
    with pytest.raises(FileNotFoundError):
        state_dict.load_file(tmp_path / "none")
    with pytest.raises(jaxreg.ArgumentError, match=r"source must be a model or a mapping"):
        state_dict.save_file(wrong, tmp_path / "file")
    with pytest.raises(jaxreg.ArgumentError, match=r"mapping must be a mapping from names to arrays, got list"):
        state_dict.load(_net(), wrong)
    with pytest.raises(jaxreg.ArgumentError, match=r"model must be a flax.nnx.Module .* got list"):
        state_dict.export(wrong)


def test_float64_is_not_cut_in_silence() -> None:
    with jax.enable_x64(True):
        model = jaxreg.Linear(1, 1, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        given = state_dict.export(model)
    with pytest.raises(jaxreg.ArgumentError, match=r"is float64, which JAX would cut to float32"):
        state_dict.load(model, given)
