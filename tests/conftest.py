"""Which tests run: combinations of the registry in turn, or all of them with --full."""


def pytest_addoption(parser):
    """The option --full."""
    parser.addoption(
        "--full",
        action="store_true",
        help="every combination of the registry on every small problem and in both types, "
        "not one of them in turn",
    )


def pytest_collection_modifyitems(config, items):
    """Leaves out what is marked as `full`, unless it is asked for or named."""
    named = any("::" in argument for argument in config.args)
    if config.getoption("full") or named:
        return
    rest = [item for item in items if item.get_closest_marker("full")]
    config.hook.pytest_deselected(items=rest)
    items[:] = [item for item in items if not item.get_closest_marker("full")]
