"""Short names for people."""

from typing import Any

import pytest

from lorry_registry.records.adapter_names import label_method, name_run


@pytest.mark.parametrize(
    ("method", "label"),
    [
        ({"name": "lora", "options": {"r": 8, "alpha": 16.0, "targets": ["query"]}}, "lora r=8"),
        ({"name": "p-tuning", "options": {"tokens": 20}}, "p-tuning tokens=20"),
        ({"name": "adapter-h", "options": {"reduction": 16.0}}, "adapter-h reduction=16"),
        ({"name": "peft", "options": {"type": "LOHA", "r": 4}}, "peft LOHA r=4"),
        ({"name": "bitfit", "options": {}}, "bitfit"),
        ({"name": "lora", "options": {"r": True}}, "lora"),
        ({"name": "full"}, "full"),
    ],
)
def test_a_method_is_named_with_its_size(method: dict[str, Any], label: str) -> None:
    assert label_method({"method": method}) == label


def test_a_run_is_named_after_its_version_once_it_has_one() -> None:
    recipe = {"method": {"name": "lora", "options": {"r": 8}}}
    assert name_run("spam", label_method(recipe)) == "spam lora r=8"
    assert name_run("spam", label_method(recipe), 4) == "spam v4 lora r=8"
    assert name_run("spam", label_method({})) == "spam"
