"""The exceptions of exo.

ExoError
├── RequestError                    the caller has to change something
│   ├── InvalidRequest              malformed, wrong type, out of range
│   │   ├── UnsupportedParameter    understood, but this engine or model cannot honour it
│   │   ├── ContextOverflow         the prompt is longer than the model's context
│   │   └── PreviousResponseNotFound  the response that a request goes on from is not stored
│   ├── ModelNotFound               no such model here
│   ├── NotFound                    no such path
│   ├── MethodNotAllowed            the path exists, the method does not
│   ├── AuthenticationFailed        no key, or a wrong one
│   ├── AdminRequired               the key may use models, not change them
│   ├── ForbiddenOrigin             a web page of another site is asking
│   ├── ForbiddenHost               the Host header names another machine
│   ├── BodyTooLarge                over the body limit
│   └── BodyTimeout                 the body did not arrive in time
├── CapacityError                   the same request may succeed later
│   ├── QueueFull                   bounded queue, all places taken
│   ├── KeyLimitReached             the key has as much as it may have
│   ├── DeadlineExceeded            the request's time ran out
│   ├── Draining                    the node was told to take no new requests for now
│   └── ShuttingDown                the node takes no new work
├── EngineError                     the engine's side failed
│   ├── EngineUnavailable           cannot run on this machine
│   │   └── RemoteUnavailable       the server that answers in its place cannot be reached
│   ├── RemoteFailed                that server broke off, or answered what nobody understands
│   ├── ModelLoadError              the model could not be loaded
│   │   └── InsufficientMemory      there is no room for it
│   ├── WorkerDied                  the worker process ended during the request
│   └── RunFailed                   the runtime reported an error
│       ├── AnswerNotValid          the answer is not in the format that was asked for
│       ├── RunTimedOut             the runtime gave no sign of life for too long
│       └── EndlessPadding          the model produced nothing but padding
└── OperatorError                   settings, store or plugins are wrong; the command line exits with 2
    ├── ConfigurationError          a flag, a variable or a file
    ├── StoreError                  the model store on disk
    │   ├── BadModelName            a name that cannot be that of a model's folder
    │   ├── BadModelfile            a Modelfile that makes no sense
    │   └── ModelExists             the name of a new model is taken
    ├── PullError                   a model could not be brought into the store
    │   ├── NothingToPull           what was named brings no model
    │   └── NotEnoughDisk           there is no room for it on the disk
    ├── DiscoveryError              mDNS cannot be used on this machine's network
    ├── NodeFailed                  another node cannot be reached, or refuses what it was asked
    ├── ProxyUnreachable            nothing answers at the admin socket of HAProxy
    ├── ProxyRefused                HAProxy does not do what it was told there
    └── PluginError                 a plugin is broken or claims a taken name

Every class has a stable `code` that clients may test. Messages say what happened, to which named thing, and what to do.
"""

from __future__ import annotations

from typing import ClassVar

from exo.types.delta import Usage


class ExoError(Exception):
    """Base of every error that exo raises on purpose."""

    code: ClassVar[str] = "internal_error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class RequestError(ExoError):
    """The caller has to change the request.

    `param` names the field at fault, as a path such as `messages[0].content`, or is None.
    """

    code = "invalid_request"

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class InvalidRequest(RequestError):
    """Malformed JSON, a wrong type, a value out of range."""


class UnsupportedParameter(InvalidRequest):
    """A field that is understood, but that the engine or the model cannot honour."""

    code = "unsupported_parameter"


class ContextOverflow(InvalidRequest):
    """The prompt does not fit into the model's context. Both numbers are in tokens.

    `at_least`: the prompt is so long that nobody has counted it; `prompt_tokens` is a lower bound. The message begins
    as OpenAI's own, because litellm knows the error by that.
    """

    code = "context_length_exceeded"

    def __init__(self, *, prompt_tokens: int, context_tokens: int, hint: str = "", at_least: bool = False) -> None:
        counted = f"at least {prompt_tokens}" if at_least else str(prompt_tokens)
        super().__init__(
            f"This model's maximum context length is {context_tokens} tokens here, but the prompt has {counted}. "
            f"Shorten it, or serve the model with a larger context{hint and f' ({hint})'}.",
            param="messages",
        )
        self.prompt_tokens = prompt_tokens
        self.context_tokens = context_tokens


class ModelNotFound(RequestError):
    """No model of that name can be served here."""

    code = "model_not_found"

    def __init__(self, model: str, known: list[str]) -> None:
        names = ", ".join(known) if known else "none, pull one first"
        super().__init__(f"The model {model!r} was not found here. Known models: {names}.", param="model")
        self.model = model
        self.known = known


class PreviousResponseNotFound(InvalidRequest):
    """The response that a request goes on from is not stored. Clients look for this code, and send the whole again."""

    code = "previous_response_not_found"


class NotFound(RequestError):
    """No such path."""

    code = "not_found"


class MethodNotAllowed(RequestError):
    """The path exists, the method does not."""

    code = "method_not_allowed"


class AuthenticationFailed(RequestError):
    """No API key, or one that is not known. The message never hints which."""

    code = "invalid_api_key"

    def __init__(self) -> None:
        super().__init__("A valid API key is required: send it as 'Authorization: Bearer KEY' or as 'x-api-key: KEY'.")


class AdminRequired(RequestError):
    """The key is known, but its scope is use, not admin. `key` is its name."""

    code = "admin_required"

    def __init__(self, key: str) -> None:
        super().__init__(
            f"The key {key!r} may use models, but this takes a key of scope admin. Send one, or ask whoever runs the "
            "node to write scope=admin behind this one in its key file."
        )
        self.key = key


class ForbiddenOrigin(RequestError):
    """A browser sent a request on behalf of a page from another site."""

    code = "origin_not_allowed"


class ForbiddenHost(RequestError):
    """The Host header names something else than this machine (DNS rebinding)."""

    code = "host_not_allowed"


class BodyTooLarge(RequestError):
    """The body is over the limit. `limit` is in bytes; `variable` sets it, if any does."""

    code = "body_too_large"

    def __init__(self, limit: int, variable: str = "EXO_MAX_BODY") -> None:
        what_to_do = f"Send less, or raise {variable}." if variable else "Send less."
        super().__init__(f"The request body is over the limit of {limit} bytes. {what_to_do}")
        self.limit = limit


class BodyTimeout(RequestError):
    """The body did not arrive in time. `seconds` is the limit."""

    code = "body_timeout"

    def __init__(self, seconds: float) -> None:
        super().__init__(f"The request body did not arrive within {seconds:g} seconds. Send it without pauses.")


class CapacityError(ExoError):
    """The same request may succeed later. `retry_after` is in whole seconds."""

    code = "overloaded"

    def __init__(self, message: str, *, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class QueueFull(CapacityError):
    """Every place of the bounded queue is taken."""

    code = "queue_full"


class KeyLimitReached(CapacityError):
    """The key has as many requests under way, or has spent as many tokens, as it may."""

    code = "key_limit"


class DeadlineExceeded(CapacityError):
    """The request's time ran out, in the queue or while running."""

    code = "deadline_exceeded"


class ShuttingDown(CapacityError):
    """The node is ending: it takes no new work."""

    code = "shutting_down"


class Draining(CapacityError):
    """The node takes no new work until somebody tells it to; what it has accepted goes on."""

    code = "draining"


class EngineError(ExoError):
    """The engine's side failed; the request itself was fine."""

    code = "engine_error"


class EngineUnavailable(EngineError):
    """The engine cannot run on this machine."""

    code = "engine_unavailable"


class RemoteUnavailable(EngineUnavailable):
    """The server that the engine forwards to cannot be reached, or does not let this node in."""

    code = "remote_unavailable"


class RemoteFailed(EngineError):
    """The server that the engine forwards to broke off the answer, or sent what cannot be read."""

    code = "remote_failed"


class ModelLoadError(EngineError):
    """The model could not be loaded."""

    code = "model_load_failed"


class InsufficientMemory(ModelLoadError):
    """The model needs more memory than can be made free. All in bytes."""

    code = "insufficient_memory"

    def __init__(self, message: str, *, needed: int, available: int) -> None:
        super().__init__(message)
        self.needed = needed
        self.available = available


class WorkerDied(EngineError):
    """The worker process ended while it held the request."""

    code = "engine_worker_died"


class RunFailed(EngineError):
    """The runtime reported an error during the run."""

    code = "engine_run_failed"


class AnswerNotValid(RunFailed):
    """The model did not write what the request asks for, however often it was asked.

    `usage` counts the attempts, which have taken their time although nobody gets them.
    """

    code = "answer_not_valid"

    def __init__(self, message: str, *, usage: Usage | None = None) -> None:
        super().__init__(message)
        self.usage = usage


class RunTimedOut(RunFailed):
    """The runtime gave no sign of life for longer than it may; its process was ended."""

    code = "engine_run_timed_out"


class EndlessPadding(RunFailed):
    """The model produced padding tokens only, more of them in a row than it may."""

    code = "engine_endless_padding"


class OperatorError(ExoError):
    """Something that whoever runs the node has to mend."""

    code = "operator_error"


class ConfigurationError(OperatorError):
    """A flag, an environment variable or a settings file is wrong."""

    code = "configuration_error"


class StoreError(OperatorError):
    """The model store on disk is not as it has to be."""

    code = "store_error"


class BadModelName(StoreError):
    """A name that cannot be that of a model's folder, or that could lead out of the store."""

    code = "bad_model_name"


class BadModelfile(StoreError):
    """A Modelfile that makes no sense, or names a model that cannot be used."""

    code = "bad_modelfile"


class ModelExists(StoreError):
    """The name of a new model is taken."""

    code = "model_exists"


class PullError(OperatorError):
    """A model could not be brought into the store."""

    code = "pull_failed"


class NothingToPull(PullError):
    """What was named brings no model: no card, no reference, no repository, no such file in it."""

    code = "nothing_to_pull"


class NotEnoughDisk(PullError):
    """The model needs more room on the disk than there is; the message has both numbers."""

    code = "insufficient_disk"


class DiscoveryError(OperatorError):
    """The network does not let this machine announce itself by mDNS, or see others."""

    code = "discovery_failed"


class NodeFailed(OperatorError):
    """Another node of the cluster cannot be reached, or refuses what it was asked."""

    code = "node_failed"


class ProxyUnreachable(OperatorError):
    """Nothing answers at the admin socket of HAProxy, or not what HAProxy would."""

    code = "proxy_unreachable"


class ProxyRefused(OperatorError):
    """HAProxy does not do what it was told at its admin socket."""

    code = "proxy_refused"


class PluginError(OperatorError):
    """A plugin is broken, or claims a name that is taken."""

    code = "plugin_error"
