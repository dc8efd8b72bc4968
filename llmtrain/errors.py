"""Errors that a user can cause and mend. Each class knows the exit code of the command it stops.

A message reads: where: what is wrong, with the values. What is allowed. What to do.
Everything that is not one of these is a bug and keeps its traceback.
"""

EXIT_DIVERGED = 17
EXIT_SAVED_AFTER_SIGNAL = 75
EXIT_HANG = 124


class LlmtrainError(Exception):
    """A mistake the user can mend; printed without a traceback."""

    exit_code = 1


class ConfigError(LlmtrainError):
    """The configuration or the command line is wrong."""

    exit_code = 2


class MachineError(LlmtrainError):
    """This machine, its packages or its network cannot do what was asked."""

    exit_code = 3


class DataError(LlmtrainError):
    """Raw text, documents, a tokenizer or token shards are missing, damaged or do not match."""

    exit_code = 4


class CheckpointError(LlmtrainError):
    """A checkpoint or an export is missing, damaged or does not match."""

    exit_code = 5


class MemoryExhaustedError(LlmtrainError):
    """A device or the host ran out of memory."""

    exit_code = 6


class DivergenceError(LlmtrainError):
    """Training produced a loss that is not finite, or one that keeps rising."""

    exit_code = EXIT_DIVERGED


class ParallelError(LlmtrainError):
    """Ranks, groups or the launcher do not fit together."""

    exit_code = 3


class HangError(LlmtrainError):
    """Ranks waited for one another longer than allowed."""

    exit_code = EXIT_HANG


class LostRankError(LlmtrainError):
    """Another rank ended first; what it says, or the code it ended with, is the cause."""

    exit_code = 1
