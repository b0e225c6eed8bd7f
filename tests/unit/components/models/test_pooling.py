"""What a base says of how a text becomes one vector, and vectors that are pooled so."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lorry_components.models.base_push import push_base
from lorry_components.models.bases import list_base_files, list_hub_patterns, resolve_base
from lorry_components.models.named_bases import find_named_folder
from lorry_components.models.pooled_model import pool_states
from lorry_components.models.pooling import read_pooling
from lorry_registry.errors import BaseModelError
from lorry_registry.manifest import Pooling
from lorry_registry.tasks.base_places import BasePlace
from lorry_registry.tasks.input_specs import BaseSpec

_MODULES = "sentence_transformers.models."


def write_modules(folder: Path, config: object, *further: str) -> Path:
    """Write what sentence-transformers writes of its modules into a base's folder."""
    types = ["Transformer", "Pooling", *further]
    modules = [
        {
            "idx": number,
            "name": str(number),
            "path": f"{number}_{name}" if number else "",
            "type": _MODULES + name,
        }
        for number, name in enumerate(types)
    ]
    (folder / "1_Pooling").mkdir(parents=True, exist_ok=True)
    (folder / "modules.json").write_text(json.dumps(modules), "utf-8")
    (folder / "1_Pooling/config.json").write_text(json.dumps(config), "utf-8")
    return folder


@pytest.mark.parametrize(
    ("config", "further", "pooling"),
    [
        ({"pooling_mode_mean_tokens": True}, (), Pooling(place="mean")),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, ("Normalize",), "mean"),
        ({"pooling_mode_cls_token": True}, ("Normalize",), "first"),
        ({"pooling_mode_lasttoken": True}, ("Normalize",), "last"),
        ({"pooling_mode": "cls"}, ("Normalize",), "first"),
        # What is between is not the base's last states any more.
        ({"pooling_mode_mean_tokens": True}, ("Dense", "Normalize"), Pooling(place="mean")),
    ],
)
def test_a_base_is_read_as_sentence_transformers_reads_it(
    tmp_path: Path, config: object, further: tuple[str, ...], pooling: Pooling | str
) -> None:
    wanted = (
        Pooling.model_validate({"place": pooling, "normalizes": True})
        if isinstance(pooling, str)
        else pooling
    )
    assert read_pooling(write_modules(tmp_path, config, *further)) == wanted


def test_a_base_that_says_nothing_is_no_fault(tmp_path: Path) -> None:
    assert read_pooling(tmp_path) is None
    (tmp_path / "modules.json").write_text("[]", "utf-8")
    assert read_pooling(tmp_path) is None


@pytest.mark.parametrize(
    ("config", "what"),
    [
        ({"pooling_mode_max_tokens": True}, "pools by pooling_mode_max_tokens"),
        (
            {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True},
            "pools by pooling_mode_cls_token, pooling_mode_mean_tokens",
        ),
        ({"pooling_mode": "max"}, "pools by max"),
        ({}, "pools by nothing"),
        ([], "is not a JSON object"),
    ],
)
def test_another_way_of_pooling_is_refused(tmp_path: Path, config: object, what: str) -> None:
    with pytest.raises(BaseModelError, match=what):
        read_pooling(write_modules(tmp_path, config))


@pytest.mark.parametrize("content", ["{", "{}", "[1]", '[{"type": "x.Pooling", "path": "../elsewhere"}]'])
def test_damaged_modules_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "modules.json").write_text(content, "utf-8")
    with pytest.raises(BaseModelError, match=r"cannot be read|is no list|outside of the base"):
        read_pooling(tmp_path)


def test_how_a_base_pools_is_no_part_of_its_fingerprint_and_travels_with_it(
    make_base: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_base()
    before = resolve_base(BaseSpec(model=str(folder))).identity.fingerprint
    plain = push_base(BaseSpec(model=str(folder)), "plain", BasePlace(address=str(tmp_path / "place")))
    assert plain.manifest.companions == ()
    write_modules(folder, {"pooling_mode_mean_tokens": True}, "Normalize")
    assert resolve_base(BaseSpec(model=str(folder))).identity.fingerprint == before
    assert "modules.json" not in list_base_files(folder)[1]
    place = BasePlace(address=str(tmp_path / "place"))
    push_base(BaseSpec(model=str(folder)), "mine", place)
    found = find_named_folder(BaseSpec(model="bases:mine").find_in(place))
    assert read_pooling(found) == Pooling(place="mean", normalizes=True)
    assert resolve_base(BaseSpec(model="bases:mine").find_in(place)).identity.fingerprint == before
    assert {"modules.json", "*_Pooling/config.json"} <= set(list_hub_patterns())


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_not_pooled(side: str) -> None:
    states = torch.randn(1, 3, 4)
    padding = torch.full((1, 2, 4), 99.0)
    padded = torch.cat([padding, states] if side == "left" else [states, padding], dim=1)
    mask = torch.tensor([[0, 0, 1, 1, 1]] if side == "left" else [[1, 1, 1, 0, 0]])
    expected: dict[Any, torch.Tensor] = {
        "first": states[:, 0],
        "last": states[:, -1],
        "mean": states.mean(dim=1),
    }
    for place, vector in expected.items():
        torch.testing.assert_close(pool_states(padded, mask, Pooling(place=place)), vector)
        long = pool_states(padded, mask, Pooling(place=place, normalizes=True))
        torch.testing.assert_close(long.norm(dim=1), torch.tensor([2.0]))
        torch.testing.assert_close(long / long.norm(), vector / vector.norm())
    torch.testing.assert_close(pool_states(states, None, Pooling(place="mean")), states.mean(dim=1))
