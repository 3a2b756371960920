"""The five steps as a pyinfra deploy, an operation each. Its operations do not sync what they write: the restart does
it for them before, in one command, so that no operation more is needed."""

from pyinfra import host
from pyinfra.operations import files, server

where = host.data.get("dir")
token = f"{where}/data/infisical-token-auth-token"

server.shell(
    name="Back up",
    commands=[f"cp -p {token} {where}/backups/token && sync {where}/backups/token {where}/backups"],
    _sudo=True,
)
files.put(name="Place", src="token", dest=token, user="1000", group="1000", mode="600", _sudo=True)
files.line(
    name="Point",
    path=f"{where}/runner.env",
    line="^INFISICAL_TOKEN_AUTH_FILE=.*",
    replace=f"INFISICAL_TOKEN_AUTH_FILE={token}",
    _sudo=True,
)
server.shell(
    name="Restart",
    commands=[f"sync {token} {where}/data {where}/runner.env {where} && toyctl restart {where}"],
    _sudo=True,
)
server.shell(name="Verify", commands=[f"toyctl verify {where} {host.data.get('digest')}"], _sudo=True)
