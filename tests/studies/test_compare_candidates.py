import pytest

import flowopt as fo
from flowopt.errors import CompatibilityError, ConfigurationError, DataError, DefinitionError
from flowopt.registry import FLOWS, METHODS
from studies.common.candidates import MOST_BYTES_OF_A_FILE, STEP_SIZE_OF_A_FILE, candidate

HEAVY_BALL = """
A: dtheta/dt = p
B: dp/dt = -g
O: dp/dt = -friction*p
parameter friction = 0.5
"""
HOSTILE = "A: dtheta/dt = __import__('pathlib').Path('{path}').touch()"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "my_flow.txt"
    path.write_text(HEAVY_BALL)
    return path


@pytest.mark.parametrize("name", METHODS)
def test_every_method_of_the_registry_is_known_by_its_name(name):
    entry, method = candidate(name), METHODS[name]()
    assert entry.label == name
    assert entry.word == method.scheme.word
    assert entry.step_size == float(method.step_size)


@pytest.mark.parametrize("name", [name for name in FLOWS if name not in METHODS])
def test_a_flow_by_itself_takes_its_usual_word(name):
    assert candidate(name).label == f"{name}:{FLOWS[name].words[0]}"


@pytest.mark.parametrize(
    ("name", "word"), [(name, word) for name, entry in FLOWS.items() for word in entry.words]
)
def test_every_flow_goes_with_each_of_its_words(name, word):
    entry = candidate(f"{name}:{word}")
    assert (entry.flow.name, entry.word) == (name, word)
    assert entry.step_size == FLOWS[name].step_size


def test_a_flow_goes_with_a_scheme_of_the_registry():
    entry = candidate("heavy_ball:rk4@0.1")
    assert isinstance(entry.scheme, fo.RungeKutta)
    assert (entry.word, entry.step_size) == ("rk4", 0.1)


def test_what_follows_the_at_sign_is_the_learning_rate_of_a_method():
    entry = candidate("momentum@0.2")
    assert entry.step_size == pytest.approx(0.2)
    assert entry.label == "momentum@0.2"


@pytest.mark.parametrize(("specification", "cost"), [("heavy_ball:BAOAB", 3), ("adam", 3)])
def test_a_gradient_costs_three_forward_passes(specification, cost):
    assert candidate(specification).cost_per_step == cost


def test_four_stages_cost_twelve_forward_passes():
    assert candidate("heavy_ball:rk4").cost_per_step == 12


def test_a_file_by_itself_takes_its_letters_in_order(file):
    entry = candidate(str(file))
    assert (entry.label, entry.step_size) == ("my_flow.txt:ABO", STEP_SIZE_OF_A_FILE)
    assert float(entry.flow.hyperparameters["friction"]) == 0.5
    assert entry.text == HEAVY_BALL


def test_a_file_takes_a_word_and_a_step_size(file):
    entry = candidate(f"{file}:OBA@0.2")
    assert (entry.word, entry.step_size) == ("OBA", 0.2)


def test_a_file_may_begin_with_a_byte_order_mark(file):
    file.write_bytes(b"\xef\xbb\xbf" + HEAVY_BALL.encode())
    assert candidate(str(file)).flow.letters == ("A", "B", "O")


@pytest.mark.parametrize(
    ("specification", "error", "message"),
    [
        ("adm", ConfigurationError, "did you mean 'adam'"),
        ("hevy_ball:OBA", ConfigurationError, "did you mean 'heavy_ball'"),
        ("momentum:MA", ConfigurationError, "unknown flow 'momentum'"),
        ("heavy_ball:rk5", ConfigurationError, "did you mean 'rk4'"),
        ("heavy_ball:baoab", ConfigurationError, "capital letters"),
        ("heavy_ball:", ConfigurationError, "unknown scheme ''"),
        ("heavy_ball:OB", CompatibilityError, "leaves out"),
        ("heavy_ball:OBAX", CompatibilityError, "has no"),
        ("langevin:rk4", CompatibilityError, "has noise"),
        ("adam@-0.1", ConfigurationError, "'-0.1' after '@', expected a positive number"),
        ("adam@0", ConfigurationError, "positive"),
        ("adam@nan", ConfigurationError, "positive"),
        ("adam@inf", ConfigurationError, "positive"),
        ("adam@fast", ConfigurationError, "positive"),
        ("adam@", ConfigurationError, "positive"),
        ("", ConfigurationError, "names no optimizer"),
        ("missing.txt", DataError, "missing.txt can not be read"),
    ],
)
def test_a_specification_without_meaning_is_refused(specification, error, message):
    with pytest.raises(error, match=message):
        candidate(specification)


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (b"", DefinitionError, "no equation"),
        (b"\xff\xfe\x00", DataError, "no UTF-8 text"),
        (b"A: dtheta/dt = -g\n" * MOST_BYTES_OF_A_FILE, DataError, "more than"),
        (b"A: dtheta/dt = -rate*g", DefinitionError, "'rate'"),
        (b"A: dtheta/dt = -g +", DefinitionError, "line 1"),
    ],
)
def test_a_file_that_defines_no_flow_is_refused_with_its_name(file, content, error, message):
    file.write_bytes(content)
    with pytest.raises(error, match=message) as caught:
        candidate(str(file))
    assert str(file) in str(caught.value)


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(DataError, match="can not be read"):
        candidate(f"{tmp_path}/")


def test_a_hostile_file_runs_no_code(file, tmp_path):
    file.write_text(HOSTILE.format(path=tmp_path / "harm"))
    with pytest.raises(DefinitionError, match="is not allowed"):
        candidate(str(file))
    assert not (tmp_path / "harm").exists()
