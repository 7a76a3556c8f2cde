import dataclasses
import importlib
import subprocess
import sys

import pytest

import flowopt as fo
from flowopt.registry import CONTROLS, FLOWS, METHODS, PARTITIONED, PROBLEMS, SCHEMES
from studies.__main__ import STUDIES, main
from studies.common.tables import markdown_table, plain_table
from tests.kernels import losses

COMMANDS = ["list", "show", *STUDIES]


def _printed(capsys, *words):
    assert main(list(words)) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    "table", [FLOWS, PARTITIONED, SCHEMES, CONTROLS, METHODS, PROBLEMS, STUDIES]
)
def test_list_has_a_line_with_a_summary_for_every_name(capsys, table):
    lines = [line.split() for line in _printed(capsys, "list").splitlines()]
    for name in table:
        assert [line for line in lines if line and line[0] == name and len(line) > 2]


def test_the_version_is_told(capsys):
    assert _printed(capsys, "--version") == f"flowopt {fo.__version__}\n"


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_shown_with_each_letter_and_the_map_of_its_numbers(capsys, name):
    text, method = _printed(capsys, "show", name), METHODS[name]()
    assert f"= {method.rule.step_size}" in text
    for letter in method.flow.letters:
        assert f"  {letter}: d" in text
    for formula in method.rule.hyperparameters.values():
        assert str(formula) in text


@pytest.mark.parametrize("name", FLOWS)
def test_a_flow_is_shown_with_its_energies_and_reference(capsys, name):
    flow = FLOWS[name].build()
    text = _printed(capsys, "show", f"{name}:{FLOWS[name].words[0]}")
    assert flow.equations.reference in text
    for energy in flow.energies:
        assert f"  {energy} = " in text
    assert text.count("d/dt") == len(flow.energies)


@pytest.mark.parametrize("name", PARTITIONED)
def test_a_flow_of_blocks_is_shown_block_by_block(capsys, name):
    text, flow = _printed(capsys, "show", name), PARTITIONED[name].build()
    for block, part in zip(flow.partition.blocks, flow.parts, strict=True):
        assert f"Block {block.name}: {part.flow.name}" in text
        assert all(f"  {letter}: d" in text for letter in part.flow.letters)
    assert ("O in the word: CDEDC" in text) == (name == "adlala")


def test_an_equation_is_shown_as_one_reads_it(capsys):
    text = _printed(capsys, "show", "langevin:BAOAB")
    assert "O: dp = -friction*p dt + sqrt(2)*sqrt(friction*temperature) dW  (exact)" in text


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("adam", "M: dm = momentum_rate*(g - m) dt"),
        ("adam", "momentum_rate  = 0.105361   = -log(beta1)  rate × h"),
        ("adamw", "W: dtheta = -theta*weight_decay dt                 (euler)"),
        ("heavy_ball:BAOAB", "order               2"),
        ("heavy_ball:BAOAB", "closure-free        no"),
        ("heavy_ball:BAOAB", "d/dt = -friction*p**2"),
        ("heavy_ball:rk4", "gradients per step  4"),
        ("adam", "flowopt show adam:TMVA"),
    ],
)
def test_what_is_shown_is_derived(capsys, name, line):
    assert line in _printed(capsys, "show", name)


def test_an_energy_whose_rate_is_not_derived_says_why(capsys, tmp_path):
    path = tmp_path / "flow.txt"
    path.write_text("A: dtheta/dt = -g\nenergy square: L**2")
    assert "not derived (energy 'square'" in _printed(capsys, "show", str(path))


def test_latex_is_the_flows_own(capsys):
    flow = FLOWS["langevin"].build()
    assert _printed(capsys, "show", "langevin", "--latex") == flow.latex() + "\n"


def test_source_is_the_code_that_runs(capsys):
    text = _printed(capsys, "show", "heavy_ball:BAOAB", "--source")
    flow = FLOWS["heavy_ball"].build()
    for letter, parts in (("B", 2), ("A", 2), ("O", 1)):
        assert flow.source(letter, parts=parts).strip() in text


@pytest.mark.parametrize("name", [*FLOWS, *METHODS])
def test_a_kernel_is_shown_with_the_variables_of_the_equation(capsys, name):
    lines = _printed(capsys, "show", name, "--kernel").splitlines()
    assert lines[0].startswith(f"# {name}")
    starts = lines[lines.index("# the next step starts from") + 1 :]
    flow = METHODS[name]().flow if name in METHODS else FLOWS[name].build()
    for variable in flow.equations.variables:
        assert any(line.startswith(f"{variable}_1 = ") for line in starts)
    for scalar in flow.equations.scalars:
        assert any(line.startswith(f"{scalar} = ") for line in starts)


def test_the_code_of_a_kernel_is_shown_raw(capsys):
    text = _printed(capsys, "show", "gradient_flow", "--llvm")
    assert text.startswith("; gradient_flow")
    assert "define i64 @run(" in text


def test_the_code_for_a_gpu_is_shown_without_one(capsys):
    text = _printed(capsys, "show", "langevin", "--ptx")
    assert text.startswith("// langevin")
    assert ".visible .entry trajectories(" in text


def test_a_step_that_is_no_kernel_says_why(capsys, monkeypatch):
    monkeypatch.setattr(fo.problems, "rosenbrock", lambda: losses.Plain(losses.random))
    text = _printed(capsys, "show", "gradient_flow", "--kernel")
    assert "no kernel, eager torch steps: " in text
    assert "random numbers" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_has_a_description(capsys, command):
    text = _printed(capsys, command, "--help")
    assert text.startswith(f"usage: flowopt {command}")
    assert "\n\n" in text


@pytest.mark.parametrize("command", ["show", *STUDIES])
def test_help_of_a_command_with_arguments_has_an_example(capsys, command):
    text = _printed(capsys, command, "--help")
    assert f"examples:\n  flowopt {command}" in text


@pytest.mark.parametrize("name", STUDIES)
def test_help_of_a_study_names_every_setting_with_its_value(capsys, name):
    text = _printed(capsys, name, "--help")
    config = importlib.import_module(f"{STUDIES[name]}.config").Config
    assert all(f"  {field.name}=" in text for field in dataclasses.fields(config))


def test_no_words_print_the_help(capsys):
    assert _printed(capsys).startswith("usage: flowopt")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["comparre"], "did you mean 'compare'"),
        (["show"], "required: NAME"),
        (["show", "admm"], "did you mean 'adam'"),
        (["show", "missing.txt"], "can not be read"),
        (["show", "adam", "--latex", "--source"], "not allowed with"),
        (["show", "adam", "--kernel", "--latex"], "not allowed with"),
        (["list", "flows"], "unrecognized arguments: flows"),
    ],
)
def test_a_wrong_word_is_one_line_on_the_error_stream(capsys, words, message):
    assert main(words) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.startswith("flowopt: ")
    assert printed.err.count("\n") == 1
    assert not printed.out


def test_a_plain_table_has_aligned_columns_and_no_trailing_spaces():
    table = plain_table(("name", "summary"), [("a", "first"), ("long name", "")])
    assert table == "name       summary\na          first\nlong name"


def test_a_markdown_table_is_aligned_and_escapes_its_sign():
    table = markdown_table(("name", "h"), [("a|b", "0.1"), ("c", "10")], right={"h"})
    assert table.splitlines() == [
        "| name |   h |",
        "| ---- | --: |",
        "| a\\|b | 0.1 |",
        "| c    |  10 |",
    ]


def test_a_reader_that_wants_no_more_ends_the_output_quietly():
    command = [sys.executable, "-m", "studies", "list"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        # Before it has begun to write.
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0
