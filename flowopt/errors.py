"""Exceptions of flowopt: wrong use raises one of these, numerical failure is a `Status`."""


class FlowoptError(Exception):
    """Base of every error that flowopt raises on purpose."""


class DefinitionError(FlowoptError, ValueError):
    """An equation, its text or its hyperparameters do not define a flow."""


class CompatibilityError(FlowoptError, ValueError):
    """A flow, a scheme, a control and a problem do not fit together."""


class PartitionError(FlowoptError, ValueError):
    """Blocks do not cover the parameters, each of them once, or do not fit a problem."""


class ConfigurationError(FlowoptError, ValueError):
    """A setting has an unknown name or an impossible value."""


class DataError(FlowoptError, ValueError):
    """Data, a start or a loss has the wrong shape, type, content or place."""


class NotFiniteError(FlowoptError, ArithmeticError):
    """A gradient holds NaN or infinity, and it was asked not to step by such ones."""


class KernelMemoryError(FlowoptError, MemoryError):
    """A native kernel got no memory to work in; trajectories are as they were before the run."""
