"""The server block of a variant: a typed allow-list, since writing it is as good as writing a Deployment.

What is not listed here cannot be asked for: no host paths, privileges, service accounts, node names or commands.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints

from wattzoo.api.base import (
    LIST_ATOMIC,
    LIST_MAP_BY_NAME,
    UNIQUE_NAMES,
    ApiModel,
    DnsName,
    Integer,
    Quantity,
    Rule,
    exactly_one,
)

OPERATOR_ARG_PREFIXES = ("--served", "--tensor", "-tp", "--port", "--host", "--model=")
DEVICE_VARIABLES = ("NVIDIA_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES")

Argument = Annotated[str, StringConstraints(min_length=1, max_length=1024)]


def sets_what_the_operator_sets(argument: str) -> bool:
    """Whether a server argument (also abbreviated, or with `_` for `-`) is one that the operator adds itself."""
    return argument == "--model" or argument.startswith(OPERATOR_ARG_PREFIXES)


class KeySelector(ApiModel):
    """One key of a Secret or ConfigMap of the same namespace."""

    name: Annotated[DnsName, Field(description="Name of the object, in the same namespace.")]
    key: Annotated[
        str,
        StringConstraints(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$"),
        Field(description="Key in the object's data."),
    ]


class EnvironmentVariable(ApiModel):
    """One environment variable of the server."""

    name: Annotated[
        str,
        StringConstraints(min_length=1, max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$"),
        Field(description="The variable's name."),
    ]
    value: Annotated[
        Annotated[str, StringConstraints(max_length=1024)] | None, Field(description="The value itself.")
    ] = None
    secret_key_ref: Annotated[KeySelector | None, Field(description="Take the value from a Secret.")] = None
    config_map_key_ref: Annotated[KeySelector | None, Field(description="Take the value from a ConfigMap.")] = None

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="[has(self.value), has(self.secretKeyRef), has(self.configMapKeyRef)].filter(x, x).size() == 1",
            message="exactly one of value, secretKeyRef and configMapKeyRef must be set",
            holds=lambda self: exactly_one(self.value, self.secret_key_ref, self.config_map_key_ref),
        ),
        Rule(
            cel=f"!(self.name in {list(DEVICE_VARIABLES)})",
            message="name must not choose devices: the device plugin sets " + ", ".join(DEVICE_VARIABLES),
            holds=lambda self: self.name not in DEVICE_VARIABLES,
            field=".name",
        ),
    )


class PullSecret(ApiModel):
    """A Secret with registry credentials."""

    name: Annotated[DnsName, Field(description="Name of the Secret, in the same namespace.")]


class ServerResources(ApiModel):
    """What one replica requests besides its accelerators."""

    cpu: Annotated[Quantity, Field(description="CPU request, for example 8 or 500m.")] = "4"
    memory: Annotated[Quantity, Field(description="Memory request and limit, for example 64Gi.")] = "16Gi"


class EmptyDirCache(ApiModel):
    """A node-local directory that lives as long as the pod."""

    size_limit: Annotated[Quantity | None, Field(description="Largest size, for example 200Gi; unset: no limit.")] = (
        None
    )


class ModelCache(ApiModel):
    """Where downloaded weights are kept: a claim that replicas share, or a directory per pod."""

    claim_name: Annotated[
        DnsName | None, Field(description="A PersistentVolumeClaim of the same namespace, mounted by every replica.")
    ] = None
    empty_dir: Annotated[EmptyDirCache | None, Field(description="A directory per pod, filled anew at each start.")] = (
        None
    )

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="has(self.claimName) != has(self.emptyDir)",
            message="exactly one of claimName and emptyDir must be set",
            holds=lambda self: exactly_one(self.claim_name, self.empty_dir),
        ),
    )


class Startup(ApiModel):
    """How long a replica may take to start."""

    timeout_seconds: Annotated[
        Integer,
        Field(ge=10, le=7200, description="Seconds until a replica that does not answer is restarted by its probe."),
    ] = 900


class Server(ApiModel):
    """A model server that WattZoo renders as a Deployment and a Service."""

    image: Annotated[
        str,
        StringConstraints(min_length=1, max_length=512, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@-]*$"),
        Field(description="Image of an OpenAI-compatible server with vLLM's arguments and metrics, by digest or tag."),
    ]
    image_pull_secrets: Annotated[
        tuple[PullSecret, ...],
        Field(max_length=4, description="Secrets with registry credentials.", json_schema_extra=LIST_MAP_BY_NAME),
        UNIQUE_NAMES,
    ] = ()
    args: Annotated[
        tuple[Argument, ...],
        Field(
            max_length=64,
            description="Further arguments of the server. The operator adds the model, --served-model-name, "
            "--tensor-parallel-size, --host and --port itself.",
            json_schema_extra=LIST_ATOMIC,
        ),
    ] = ()
    env: Annotated[
        tuple[EnvironmentVariable, ...],
        Field(max_length=32, description="Environment of the server.", json_schema_extra=LIST_MAP_BY_NAME),
        UNIQUE_NAMES,
    ] = ()
    resources: Annotated[ServerResources, Field(description="Requests besides the accelerators.")] = ServerResources()
    model_cache: Annotated[
        ModelCache | None,
        Field(description="Where weights are kept, mounted as the Hugging Face home; unset: inside the container."),
    ] = None
    startup: Annotated[Startup, Field(description="Limits of a replica's start.")] = Startup()

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.args) || self.args.all(a, a != '--model' && "
            + " && ".join(f"!a.startsWith('{prefix}')" for prefix in OPERATOR_ARG_PREFIXES)
            + ")",
            message="args must not set what the operator sets: the model, --served-model-name, --tensor-parallel-size, "
            "--host, --port",
            holds=lambda self: not any(sets_what_the_operator_sets(argument) for argument in self.args),
            field=".args",
        ),
    )
