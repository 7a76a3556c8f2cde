"""Which tests run: combinations of the registry in turn, or all of them with --full."""


def pytest_addoption(parser):
    """The option --full."""
    parser.addoption(
        "--full",
        action="store_true",
        help="every combination of the registry on every small problem and in both types, "
        "not one of them in turn",
    )


def pytest_generate_tests(metafunc):
    """Gives a test its `combinations`: those in turn, or all if asked for or if one is named."""
    marker = metafunc.definition.get_closest_marker("combinations")
    if marker is not None:
        names, cases = marker.args
        config = metafunc.config
        everything = config.getoption("full") or any("[" in argument for argument in config.args)
        metafunc.parametrize(names.split(), cases(everything))


def pytest_collection_modifyitems(config, items):
    """Leaves out what is marked as `full`, unless it is asked for or named."""
    named = any("::" in argument for argument in config.args)
    if config.getoption("full") or named:
        return
    rest = [item for item in items if item.get_closest_marker("full")]
    config.hook.pytest_deselected(items=rest)
    items[:] = [item for item in items if not item.get_closest_marker("full")]
