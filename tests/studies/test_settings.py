from dataclasses import dataclass

import pytest

from flowopt.errors import ConfigurationError
from studies.common.settings import apply_settings


@dataclass(frozen=True)
class Config:
    methods: tuple[str, ...] = ("adam", "sgd")
    seeds: tuple[int, ...] = (0, 1)
    rates: tuple[float, ...] = ()
    data: str = "digits"
    width: int = 64
    budget: float | None = 10.0
    progress: bool = True


@pytest.mark.parametrize(
    ("setting", "field", "value"),
    [
        ("width=128", "width", 128),
        ("width=-3", "width", -3),
        ("budget=2.5e3", "budget", 2500.0),
        ("budget=4", "budget", 4.0),
        ("budget=none", "budget", None),
        ("data=mnist", "data", "mnist"),
        ("data=a=b", "data", "a=b"),
        ("progress=no", "progress", False),
        ("progress=True", "progress", True),
        ("methods=adam", "methods", ("adam",)),
        ("methods = adam, langevin:BAOAB", "methods", ("adam", "langevin:BAOAB")),
        ("methods=", "methods", ()),
        ("seeds=3,1,2", "seeds", (3, 1, 2)),
        ("rates=0.1,1", "rates", (0.1, 1.0)),
    ],
)
def test_a_value_has_the_type_of_its_field(setting, field, value):
    parsed = getattr(apply_settings(Config(), [setting]), field)
    assert (parsed, type(parsed)) == (value, type(value))


def test_fields_without_a_setting_keep_their_value():
    assert apply_settings(Config(width=3), ["data=mnist"]) == Config(width=3, data="mnist")


def test_no_settings_change_nothing():
    assert apply_settings(Config(), []) == Config()


def test_an_unknown_key_is_refused_with_the_nearest_one_and_all_of_them():
    with pytest.raises(ConfigurationError, match=r"'widht', did you mean 'width'\?") as caught:
        apply_settings(Config(), ["widht=3"])
    assert all(name in str(caught.value) for name in Config.__dataclass_fields__)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("width=wide", "whole number"),
        ("width=1.5", "whole number"),
        ("width=", "whole number"),
        ("budget=much", "a number"),
        ("budget=nan", "a number"),
        ("progress=maybe", "true"),
        ("data=", "some text"),
        ("seeds=0,,1", "whole number"),
        ("methods=adam,", "some text"),
    ],
)
def test_a_value_of_another_type_is_refused_with_what_was_expected(setting, expected):
    with pytest.raises(ConfigurationError, match=f"came as .*, expected .*{expected}"):
        apply_settings(Config(), [setting])


def test_a_setting_without_an_equals_sign_is_refused():
    with pytest.raises(ConfigurationError, match="'width' has no '='"):
        apply_settings(Config(), ["width"])


def test_a_key_that_comes_twice_is_refused():
    with pytest.raises(ConfigurationError, match="'width' came twice"):
        apply_settings(Config(), ["width=1", "width=2"])
