"""One table of settings: name, type, unit, default, help.

Read once from the environment (prefix ``GATEWAY_``) over ``gateway.toml`` (the same names in lower case), then frozen.
Command line flags of ``comfygate serve`` stand over both. ``docs/settings.md`` lists what stands here; a test compares.
"""

from __future__ import annotations

import re
import shlex
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, ByteSize, Field, SecretStr, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from gateway.delivering import NAME as TARGET_NAME
from gateway.object_url import ObjectUrl, parse_object_url

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(value: object) -> object:
    """Seconds from ``90``, ``"90s"``, ``"15 min"``, ``"24h"``, ``"30 d"``; anything else is left for pydantic to refuse."""
    if isinstance(value, str) and (match := re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", value.lower())):
        factor = _UNITS.get(match[2])
        if factor is not None:
            return float(match[1]) * factor
    return value


def split_list(value: object) -> object:
    """A list from ``"a, b"``; lists pass."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


Seconds = Annotated[float, BeforeValidator(parse_duration), Field(ge=0)]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(split_list)]
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
#: What CUDA_VISIBLE_DEVICES takes for one GPU; and cpu.
DEVICE = re.compile(r"cpu|\d{1,3}|(GPU|MIG)-[0-9A-Za-z-]{1,48}")
#: Arguments of ComfyUI that keep instances apart and reachable for the gateway alone.
OUR_COMFYUI_ARGUMENTS = frozenset(
    {"--listen", "--port", "--tls-keyfile", "--tls-certfile", "--cuda-device", "--database-url"}
    | {f"--{folder}-directory" for folder in ("input", "output", "temp", "user")}
)


def _target(entry: str) -> tuple[str, ObjectUrl]:
    """A target and its name. Raises ValueError with a sentence for the operator."""
    name, _, url = entry.partition("=")
    if not TARGET_NAME.fullmatch(name.strip()):
        # Not repeated: an entry that is cut wrongly may hold anything.
        msg = "DELIVERY_TARGETS takes name=s3://bucket/prefix, the name a word of a to z, 0 to 9, - and _"
        raise ValueError(msg)
    return name.strip(), parse_object_url(url.strip(), setting=f"DELIVERY_TARGETS, {name.strip()}")


class Settings(BaseSettings):
    """All settings, validated and frozen."""

    model_config = SettingsConfigDict(
        env_prefix="GATEWAY_", toml_file="gateway.toml", extra="forbid", frozen=True, validate_default=True
    )
    #: Kept so that ``from_mapping`` can leave the environment out.
    sources_from_outside: ClassVar[bool] = True

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    upstreams: Names = Field(
        (),
        description="Comma-separated base URLs of ComfyUI instances; may carry credentials. Empty: the embedded CPU worker.",
    )
    upstream_token: SecretStr | None = Field(
        None,
        min_length=8,
        description="The COMFYGATE_WORKER_TOKEN of all UPSTREAMS: with the node pack, files of ended jobs are deleted there.",
    )
    embedded_workers: int | None = Field(
        None,
        ge=0,
        le=16,
        description="Embedded CPU workers to start; 1 when UPSTREAMS and COMFYUI_DIR are empty, else 0.",
    )
    comfyui_dir: Path | None = Field(
        None, description="A ComfyUI checkout on this machine; the gateway runs it, once for each of COMFYUI_GPUS."
    )
    comfyui_gpus: Names = Field(
        (), max_length=16, description="GPUs, by index or UUID, a ComfyUI each; cpu: one without a GPU. Empty: GPU 0."
    )
    comfyui_python: Path | None = Field(
        None, description="Python to run it with; else that of the checkout's venv or .venv, else the gateway's own."
    )
    comfyui_args: str | None = Field(None, description="More arguments for each ComfyUI, written as for a shell.")
    data_dir: Path = Field(Path("data"), description="Where everything is kept; made with mode 0700.")
    storage_url: str | None = Field(
        None,
        description="Object storage for inputs and results, s3://bucket/prefix?endpoint=…&region=…; else DATA_DIR.",
    )
    storage_cache: ByteSize = Field(
        ByteSize(4 * 1024**3),
        gt=0,
        description="What of STORAGE_URL is kept on the local disk as well, besides what is in use.",
    )
    storage_downloads: Literal["proxy", "redirect"] = Field(
        "proxy",
        description="What lies in a bucket: downloads pass through the gateway, or are sent on to links to the bucket.",
    )
    delivery_direct: Names = Field(
        (),
        description="Names of DELIVERY_TARGETS to which upstreams with the node pack put videos themselves, past the gateway.",
    )
    delivery_targets: Names = Field(
        (),
        max_length=32,
        description="Where jobs, keys and templates may have results put by name: name=s3://bucket/prefix?endpoint=…&region=…",
    )
    workflows_dir: Path | None = Field(
        None, description="Folder of templates; ./workflows when it exists, else the shipped ones."
    )
    auth: Literal["open", "keys"] = Field(
        "open", description="open: one owner, loopback only. keys: a key is needed, or the admin token."
    )
    admin_token: SecretStr | None = Field(
        None, description="Token for what changes pool or keys; made into DATA_DIR/admin-token when not given."
    )
    public_url: str | None = Field(None, description="Base of absolute links, e.g. https://faces.example.org/swap.")
    allowed_hosts: Names = Field((), description="Host names served; empty in keys mode serves every Host.")
    trusted_proxies: Names = Field((), description="Addresses or CIDRs whose Forwarded headers are believed.")
    cors_origins: Names = Field((), description="Origins whose pages may call the API from a browser; off when empty.")
    tls_cert: Path | None = Field(None, description="PEM certificate chain to serve https with; goes with TLS_KEY.")
    tls_key: Path | None = Field(None, description="PEM private key of TLS_CERT, without a passphrase.")
    v1_enabled: bool = Field(True, description="Serve the v1 REST API below /api/v1; off: 503 there.")
    url_inputs: Literal["off", "allowlist", "public"] = Field(
        "public",
        description="Which URLs may be given as inputs and webhooks: none, those of URL_ALLOWLIST, or public addresses too.",
    )
    url_allowlist: Names = Field(
        (),
        description="CIDRs or host names that URL inputs and webhooks may reach besides public addresses; any port, http too.",
    )
    resolve: Names = Field((), description="name=address pairs that stand before DNS for URL inputs and webhooks.")
    ca_file: Path | None = Field(None, description="PEM bundle trusted besides the system's for outgoing https.")
    max_upload: ByteSize = Field(ByteSize(1100 * 1024**2), gt=0, description="Largest request body.")
    max_json: ByteSize = Field(ByteSize(1024**2), gt=0, description="Largest JSON body, data URIs in it not counted.")
    max_image: ByteSize = Field(ByteSize(25 * 1024**2), gt=0, description="Largest image input.")
    max_video: ByteSize = Field(ByteSize(1024**3), gt=0, description="Largest video input.")
    max_gif: ByteSize = Field(ByteSize(50 * 1024**2), gt=0, description="Largest GIF input.")
    max_frames: int = Field(18_000, gt=0, description="Most frames a video may have.")
    result_retention: Seconds = Field(86_400.0, description="How long results can be downloaded.")
    job_retention: Seconds = Field(30 * 86_400.0, description="How long ended jobs are remembered.")
    asset_retention: Seconds = Field(86_400.0, description="How long inputs are kept after their job ended.")
    upload_retention: Seconds = Field(
        86_400.0, gt=0, description="How long files that were uploaded by themselves are kept."
    )
    require_consent: bool = Field(
        False, description="Refuse to swap a face unless the request says that the people in the pictures agreed."
    )
    consent_retention: Seconds = Field(
        365 * 86_400.0, description="How long records of consent are kept after their job ended; hashes, no pictures."
    )
    queue_ttl: Seconds = Field(86_400.0, description="Queued longer than this: failed with code expired.")
    max_queue: int = Field(10_000, gt=0, description="Jobs that may wait; then 503 with Retry-After.")
    stall_seconds: Seconds = Field(600.0, gt=0, description="A running prompt silent for this long is given up.")
    max_attempts: int = Field(3, ge=1, description="Attempts of a task whose upstream was lost under it.")
    poison_after: int = Field(
        2, ge=0, description="A job under which so many upstreams died of their own fails as poisoned; 0: never."
    )
    nodes_deny: Names = Field(
        ("default",),
        description="Patterns of node classes that clients' own workflows may not use; default: those listed in workflows.md.",
    )
    nodes_swap: Names = Field(
        ("default",),
        description="Patterns of node classes that swap faces, for REQUIRE_CONSENT; default: those listed in workflows.md.",
    )
    nodes_allow: Names = Field(
        (), description="Patterns of the only node classes that clients' own workflows may use; all when empty."
    )
    workflow_price: int = Field(1, ge=0, description="Credits that a job of a client's own workflow costs.")
    safety: Literal["off", "flag", "reject"] | None = Field(
        None,
        description="What is done about inputs that the safety check flags; reject when one is configured, else off.",
    )
    safety_model: Path | None = Field(
        None, description="ONNX image classifier that checks inputs; its card lies beside it as .toml."
    )
    safety_url: str | None = Field(None, description="Service that checks inputs: pictures are posted there.")
    safety_token: SecretStr | None = Field(None, description="Sent to SAFETY_URL as Bearer.")
    safety_threshold: float = Field(0.5, gt=0, le=1, description="A picture is flagged from this score on, 0 to 1.")
    safety_frames: int = Field(
        16, ge=1, le=256, description="Frames of a video or GIF that are looked at, spread over its time."
    )
    safety_timeout: Seconds = Field(10.0, gt=0, description="How long the check of one picture may take; then 503.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged.")
    log_format: Literal["text", "json"] = Field("text", description="How log lines are written.")

    @field_validator("storage_url")
    @classmethod
    def _storage_is_a_place(cls, value: str | None) -> str | None:
        if value is not None:
            parse_object_url(value, setting="STORAGE_URL")
        return value

    @field_validator("delivery_targets")
    @classmethod
    def _targets_are_named_places(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        names = [name for name, _ in map(_target, value)]
        if len(set(names)) != len(names):
            msg = "DELIVERY_TARGETS names one target twice"
            raise ValueError(msg)
        return value

    @field_validator("upstreams")
    @classmethod
    def _upstreams_are_urls(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for url in value:
            if not re.match(r"https?://[^/]", url):
                msg = "UPSTREAMS takes base URLs such as http://10.0.0.5:8188"
                raise ValueError(msg)
        return value

    @field_validator("comfyui_gpus")
    @classmethod
    def _gpus_can_be_told_apart(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for device in value:
            if not DEVICE.fullmatch(device):
                msg = f"COMFYUI_GPUS takes indices such as 0, UUIDs such as GPU-8f3c…, or cpu, and {device!r} is none"
                raise ValueError(msg)
        return value

    @field_validator("comfyui_args")
    @classmethod
    def _arguments_leave_ours_alone(cls, value: str | None) -> str | None:
        ours = [word for word in shlex.split(value or "") if word.partition("=")[0] in OUR_COMFYUI_ARGUMENTS]
        if ours:
            msg = f"COMFYUI_ARGS: {ours[0]} is set by the gateway, for each instance its own"
            raise ValueError(msg)
        return value

    @field_validator("public_url")
    @classmethod
    def _public_url_is_a_base(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"https?://[^/?#\s]+(/[^?#\s]*)?", value):
            msg = "PUBLIC_URL takes an absolute http(s) URL without query"
            raise ValueError(msg)
        return value.rstrip("/") if value else None

    @field_validator("trusted_proxies")
    @classmethod
    def _proxies_are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for proxy in value:
            try:
                ip_network(proxy, strict=False)
            except ValueError:
                msg = f"TRUSTED_PROXIES takes addresses or CIDRs such as 127.0.0.1 or 10.0.0.0/8, and {proxy!r} is neither"
                raise ValueError(msg) from None
        return value

    @field_validator("cors_origins")
    @classmethod
    def _origins_are_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            # No "*": in open mode any page on the web could then read and start jobs.
            if not re.fullmatch(r"https?://[^/?#\s*]+/?", origin):
                msg = f"CORS_ORIGINS takes origins such as https://app.example.org, and {origin!r} is none"
                raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _comfyui_has_its_directory(self) -> Settings:
        if self.comfyui_dir is None and (self.comfyui_gpus or self.comfyui_python or self.comfyui_args):
            msg = "GATEWAY_COMFYUI_GPUS, _PYTHON and _ARGS go with GATEWAY_COMFYUI_DIR: set it, too"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _direct_targets_are_targets(self) -> Settings:
        if strangers := sorted(set(self.delivery_direct) - self.target_places.keys()):
            msg = f"GATEWAY_DELIVERY_DIRECT names {strangers[0]!r}, which is none of GATEWAY_DELIVERY_TARGETS"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _certificate_and_key_go_together(self) -> Settings:
        if (self.tls_cert is None) != (self.tls_key is None):
            msg = "GATEWAY_TLS_CERT and GATEWAY_TLS_KEY go together: set both, or neither"
            raise ValueError(msg)
        return self

    @field_validator("safety_url")
    @classmethod
    def _safety_url_is_a_url(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"https?://[^/?#\s@]+(/[^#\s]*)?", value):
            msg = "SAFETY_URL takes an absolute http(s) URL; credentials go into SAFETY_TOKEN"
            raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _one_safety_check_or_none(self) -> Settings:
        if self.safety_model is not None and self.safety_url is not None:
            msg = "GATEWAY_SAFETY_MODEL and GATEWAY_SAFETY_URL are two checks: set one of them"
            raise ValueError(msg)
        if self.safety_policy != "off" and self.safety_model is None and self.safety_url is None:
            msg = (
                f"GATEWAY_SAFETY={self.safety_policy} has nobody who checks: set GATEWAY_SAFETY_MODEL or "
                "GATEWAY_SAFETY_URL, or GATEWAY_SAFETY=off"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _open_mode_stays_on_loopback(self) -> Settings:
        if self.auth == "open" and self.host not in LOOPBACK_NAMES:
            msg = (
                f"AUTH=open listens on loopback only, and HOST is {self.host}: set GATEWAY_AUTH=keys to listen there, "
                "or GATEWAY_HOST=127.0.0.1"
            )
            raise ValueError(msg)
        return self

    @property
    def safety_policy(self) -> Literal["off", "flag", "reject"]:
        """What is done about flagged inputs, the default worked out."""
        if self.safety is not None:
            return self.safety
        return "off" if self.safety_model is None and self.safety_url is None else "reject"

    @property
    def storage_place(self) -> ObjectUrl | None:
        """Where inputs and results are kept; None: in the data directory."""
        return None if self.storage_url is None else parse_object_url(self.storage_url, setting="STORAGE_URL")

    @property
    def target_places(self) -> dict[str, ObjectUrl]:
        """Where results may be put, by name."""
        return dict(map(_target, self.delivery_targets))

    @property
    def embedded_worker_count(self) -> int:
        """Workers to start, the default worked out."""
        if self.embedded_workers is not None:
            return self.embedded_workers
        return 0 if self.upstreams or self.comfyui_dir is not None else 1

    @property
    def comfyui_devices(self) -> tuple[str, ...]:
        """What each ComfyUI that the gateway runs is to run on."""
        return (self.comfyui_gpus or ("0",)) if self.comfyui_dir is not None else ()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the library calls by name; .env files are not read
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the same for secret folders
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags over environment over ``gateway.toml``."""
        if not cls.sources_from_outside:
            return (init_settings,)
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


class _PlainSettings(Settings):
    """Settings from a mapping alone."""

    model_config = SettingsConfigDict(toml_file=None)
    sources_from_outside: ClassVar[bool] = False


def from_mapping(values: dict[str, Any]) -> Settings:
    """Settings from ``values`` only: no environment, no file. For tests."""
    return _PlainSettings(**values)
