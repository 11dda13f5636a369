"""The settings of names and addresses. Each has a reason."""

from __future__ import annotations

from pydantic import Field, ValidationInfo, field_validator

from orchestrator.config import networks
from orchestrator.config.base import Group
from orchestrator.domain import host_names

_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
# "Listen on every address", and where we reach a server that does.
_EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class Addresses(Group):
    """The addresses and names on which the proxy listens."""

    http_address: str = Field(
        default="127.0.0.1",
        description="Address on which the proxy listens; loopback, so that nothing is public yet.",
    )
    http_port: int = Field(
        default=8080, ge=1, le=65535, description="Port on which the proxy listens."
    )
    control_port: int = Field(
        default=8082,
        ge=1,
        le=65535,
        description="Port on loopback on which the proxy confirms its routes.",
    )
    public_host: str = Field(default="localhost", description="Host name of the web page.")
    apps_domain: str = Field(
        default="apps.localhost",
        description="Apps answer at <slug>.<apps_domain>; browsers resolve *.localhost themselves.",
    )
    trusted_proxies: str = Field(
        default="",
        description="Addresses or networks of proxies in front of ours, comma-separated, whose"
        " X-Forwarded-For says who asks; else all their visitors count as one address.",
    )
    extra_hosts: str = Field(
        default="",
        description="More names and IP addresses of the web page, comma-separated. Any other name"
        " is refused: a page of somebody else could have led it to this machine.",
    )

    @field_validator("public_host", "apps_domain")
    @classmethod
    def _check_name(cls, value: str) -> str:
        return host_names.parse(value)

    @field_validator("apps_domain")
    @classmethod
    def _check_apps_domain(cls, value: str) -> str:
        if value.startswith("[") or value.replace(".", "").isdigit():
            raise ValueError(
                "must be a name, since apps have names below it, and not an IP address"
            )
        return value

    @field_validator("control_port")
    @classmethod
    def _check_control_port(cls, value: int, info: ValidationInfo) -> int:
        if value == info.data.get("http_port"):
            raise ValueError("must differ from SPAWN_HTTP_PORT")
        return value

    @field_validator("http_address")
    @classmethod
    def _check_http_address(cls, value: str) -> str:
        return host_names.parse(value).removeprefix("[").removesuffix("]")

    @field_validator("extra_hosts")
    @classmethod
    def _check_extra_hosts(cls, value: str) -> str:
        return ",".join(map(host_names.parse, networks.parts(value)))

    @field_validator("trusted_proxies")
    @classmethod
    def _check_trusted_proxies(cls, value: str) -> str:
        return networks.check(value, has_ipv6=True)

    @property
    def front_proxies(self) -> tuple[str, ...]:
        """The addresses, or networks, in `trusted_proxies`."""
        return networks.parts(self.trusted_proxies)

    @property
    def page_hosts(self) -> tuple[str, ...]:
        """Every name under which the page and the API answer, each once."""
        listening = () if self.http_address in _EVERY_ADDRESS else (self.http_address,)
        names = (self.public_host, *_LOOPBACK, *listening, *networks.parts(self.extra_hosts))
        return tuple(dict.fromkeys(map(host_names.parse, names)))

    @property
    def page_url(self) -> str:
        return f"http://{self.public_host}:{self.http_port}"

    @property
    def probe_address(self) -> str:
        """The address at which our own processes reach the proxy."""
        return _EVERY_ADDRESS.get(self.http_address, self.http_address)

    def app_url(self, slug: str) -> str:
        """The public URL of an app."""
        return f"http://{slug}.{self.apps_domain}:{self.http_port}/"
