"""Every exception and warning of the library, in one tree.

    LightTransferError
    ├── ModelError
    │   ├── ModelNotFoundError        no such model, folder or file
    │   ├── ModelDoesNotFitError      the weights exceed the memory at hand
    │   └── UnsupportedModelError     the model does something that we would get wrong
    ├── InvalidInputError (ValueError)
    │   ├── InvalidWindowError
    │   ├── InvalidPlanError
    │   ├── InvalidPromptError
    │   ├── InvalidSessionError
    │   ├── InvalidScoresError
    │   ├── UnknownMetricError
    │   ├── UnknownTaskError
    │   ├── TaskLengthError           no example of the task has that many tokens
    │   └── TaskFileError             a line of a task file that is not a question
    ├── TaskDataError                 the texts of a task are not here, or could not be fetched
    ├── ResultsInUseError             another run adds to the same file of results
    ├── UnsupportedRequestError       a call that the hybrid cache cannot serve exactly
    ├── CacheMisuseError              a cache used twice, or outside its context
    ├── PrefillMismatchError          a prefill of another model, or without what was asked of it
    ├── UninformativeScoresError      the prompt fits the window: there is nothing to rank
    └── ServiceError                  the backend and its client
        ├── BackendUnavailableError
        ├── ModelNotLoadedError
        ├── RunNotFoundError
        ├── SweepNotFoundError        no results are kept under that name
        ├── PrefillGoneError          a kept prefill that had to make room
        ├── QueueFullError
        ├── RateLimitedError          one client asks too often
        ├── SharedRunError            others follow the run that was to be changed
        ├── DeadlineError             a run took longer than the backend allows
        ├── DoesNotFitError           refused by bytes; carries an offer that fits
        └── RunFailedError

    LightTransferWarning (UserWarning)
    ├── ShortPromptWarning
    └── CompiledStepWarning           a decode step that could not be captured

A message says what was given, what is allowed, and what to do.
"""

from __future__ import annotations


class LightTransferError(Exception):
    """Base of everything this library raises on purpose."""


class ModelError(LightTransferError):
    """A model could not be used."""


class ModelNotFoundError(ModelError):
    """The name is neither in the catalogue, nor a folder, nor a hub id that can be reached."""


class ModelDoesNotFitError(ModelError):
    """Loading the model would need more memory than the device has."""


class UnsupportedModelError(ModelError):
    """The model's attention cannot be captured or converted exactly."""


class InvalidInputError(LightTransferError, ValueError):
    """An argument is out of range."""


class InvalidWindowError(InvalidInputError):
    """The window's sizes are out of range."""


class InvalidPlanError(InvalidInputError):
    """The plan does not fit the model."""


class InvalidPromptError(InvalidInputError):
    """The prompt is empty, too long, or not what the call takes."""


class InvalidSessionError(InvalidInputError):
    """The file is not a saved session, or a damaged one."""


class InvalidScoresError(InvalidInputError):
    """The file holds no scores, or damaged ones."""


class UnknownMetricError(InvalidInputError):
    """No laziness metric is registered under that name."""


class UnknownTaskError(InvalidInputError):
    """No task is registered under that name."""


class TaskLengthError(InvalidInputError):
    """The task has no example of that many tokens."""


class TaskFileError(InvalidInputError):
    """The file is not a task file; the message names the line."""


class TaskDataError(LightTransferError):
    """The texts that a task is made of are neither in the cache nor could they be fetched."""


class ResultsInUseError(LightTransferError):
    """Another run, here or in another process, adds to the same file of results."""


class UnsupportedRequestError(LightTransferError):
    """The request asks for something that would be silently wrong."""


class CacheMisuseError(LightTransferError):
    """A hybrid cache was used twice or outside of `hybrid(...)`."""


class PrefillMismatchError(LightTransferError):
    """The prefill belongs to another model or did not keep what is asked of it."""


class UninformativeScoresError(LightTransferError):
    """The prompt fits the window, so every layer scores alike."""


class ServiceError(LightTransferError):
    """Something went wrong between a client and the backend."""


class BackendUnavailableError(ServiceError):
    """The backend process does not answer."""


class ModelNotLoadedError(ServiceError):
    """The model has to be loaded first: start a load run."""


class RunNotFoundError(ServiceError):
    """No run has that token: it was never made, or it has been dropped."""


class SweepNotFoundError(ServiceError):
    """The backend keeps no results of a sweep under that name."""


class PrefillGoneError(ServiceError):
    """The prefill behind a map has left the backend's memory to make room."""


class QueueFullError(ServiceError):
    """Too many runs are waiting."""


class RateLimitedError(ServiceError):
    """One client has asked for more than its share; the message says when to try again."""


class SharedRunError(ServiceError):
    """Others follow this run, so nobody may change it for all; a copy of one's own may be changed."""


class DeadlineError(ServiceError):
    """The run took longer than the backend allows, and was ended."""


class DoesNotFitError(ServiceError):
    """The run would hold more bytes than the backend may use.

    Parameters
    ----------
    message
        What was asked and what is allowed.
    offer
        A change to the request that would fit, in words, or None.
    """

    def __init__(self, message: str, offer: str | None = None) -> None:
        super().__init__(message)
        self.offer = offer


class RunFailedError(ServiceError):
    """A run ended with an error; the message is the run's own."""


class LightTransferWarning(UserWarning):
    """Base of the warnings of this library."""


class ShortPromptWarning(LightTransferWarning):
    """The prompt is no longer than the window, so its laziness scores say nothing."""


class CompiledStepWarning(LightTransferWarning):
    """A captured decode step was asked for and cannot be had here; decoding goes on without one."""
