import pytest

from lorry_registry.text.sizes import (
    GIB,
    MIB,
    Unit,
    format_in,
    format_probability,
    format_range,
    format_size,
    parse_size,
)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (297_000, "290.0 KiB"),
        (5 << 20, "5.0 MiB"),
        (3 << 30, "3.0 GiB"),
        (5000 << 30, "5000.0 GiB"),
    ],
)
def test_sizes_are_written_for_people(size: int, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (300, "0 KiB"),
        (299_980, "293 KiB"),
        (MIB - 1, "1,024 KiB"),
        (2_400_000, "2.3 MiB"),
        (10 * MIB - 1, "10.0 MiB"),
        (10 * MIB, "10 MiB"),
        (64 * MIB, "64 MiB"),
        (GIB, "1.00 GiB"),
        (54 * GIB, "54.0 GiB"),
    ],
)
def test_sizes_in_columns_have_few_digits(size: int, text: str) -> None:
    assert format_size(size, compact=True) == text


@pytest.mark.parametrize(
    ("size", "unit", "digits", "text"),
    [
        (1_410_000_000, "MiB", 0, "1,345 MiB"),
        (9.5 * MIB, "MiB", 1, "9.5 MiB"),
        (3 * GIB, "GiB", 2, "3.00 GiB"),
        (512, "KiB", 1, "0.5 KiB"),
    ],
)
def test_sizes_that_are_compared_are_in_one_unit(size: float, unit: Unit, digits: int, text: str) -> None:
    assert format_in(size, unit, digits=digits) == text


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [(0, 0, "0.00"), (1, GIB, "<0.01 to 1.00"), (GIB, GIB + 1, "1.00"), (GIB // 2, 12 * GIB, "0.50 to 12.0")],
)
def test_ranges_are_in_gib(low: int, high: int, text: str) -> None:
    assert format_range(low, high) == text


@pytest.mark.parametrize(
    ("quantity", "size"), [("4Gi", 4 * GIB), ("1.5G", 1_500_000_000), ("800Mi", 800 * MIB), ("12", 12)]
)
def test_memory_is_read_as_kubernetes_writes_it(quantity: str, size: int) -> None:
    assert parse_size(quantity) == size


@pytest.mark.parametrize("quantity", ["", "Gi", "4 Gi", "4gi", "-4Gi", "4.Gi", "1.2.3Gi", "4GiB"])
def test_what_is_no_quantity_is_refused(quantity: str) -> None:
    with pytest.raises(ValueError, match="is not a number of bytes"):
        parse_size(quantity)


@pytest.mark.parametrize(
    ("value", "digits", "shown"),
    [
        (0.9964, 0, ">99%"),
        (0.004, 0, "<1%"),
        (1.0, 0, "100%"),
        (0.0, 0, "0%"),
        (0.994, 0, "99%"),
        (0.006, 0, "1%"),
        (0.9996, 1, ">99.9%"),
        (0.00004, 1, "<0.1%"),
        (0.9996, 3, "99.960%"),
        (0.6225, 0, "62%"),
    ],
)
def test_no_rounding_makes_a_probability_a_certainty(value: float, digits: int, shown: str) -> None:
    assert format_probability(value, digits=digits) == shown
