"""Encrypted connections: a server that requires TLS, its private CA, and users who need a certificate.

Certificates are made here, by a CA of the test's own; another CA, which nobody trusts, made the rest.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from pathlib import Path

import pytest
import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from deployment import Deployment, Done
from edges import add, execute
from servers import PrivateServer, sql

PASSWORD = "s3cr3t-of-tls"
KEY_PASSWORD = "p4ss-of-the-key"
HOUR = timedelta(hours=1)
TABLE = "CREATE TABLE t (k varchar(20) PRIMARY KEY, v int)"
RULES = "rules: [{table: t, key: [k]}]"


@dataclass(frozen=True)
class Authority:
    """A CA in a folder: its own certificate in ca.pem, and those that it makes."""

    folder: Path
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def made(cls, folder: Path) -> Authority:
        """Make a CA."""
        folder.mkdir()
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(f"CA in {folder.name}")
        ca = _builder(name, name, key).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        certificate = ca.sign(key, hashes.SHA256())
        (folder / "ca.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return cls(folder, certificate, key)

    def issue(self, name: str, *, addresses: tuple[str, ...] = (), password: str = "") -> None:
        """Make NAME.pem and NAME.key, for these addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_name(name), self.certificate.subject, key)
        if addresses:
            names = [x509.IPAddress(ip_address(each)) for each in addresses]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = builder.sign(self.key, hashes.SHA256())
        (self.folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        locked = serialization.BestAvailableEncryption(password.encode()) if password else None
        encoded = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            locked or serialization.NoEncryption(),
        )
        (self.folder / f"{name}.key").write_bytes(encoded)

    def __getitem__(self, file: str) -> str:
        return str(self.folder / file)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.now(timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - HOUR)
        .not_valid_after(now + 24 * HOUR)
    )


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The CA that signed the server's certificate and the client's."""
    made = Authority.made(tmp_path_factory.mktemp("tls") / "ours")
    made.issue("server", addresses=("127.0.0.1",))
    made.issue("elsewhere", addresses=("192.0.2.1",))
    made.issue("client")
    made.issue("locked", password=KEY_PASSWORD)
    return made


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A CA that has nothing to do with the server."""
    made = Authority.made(tmp_path_factory.mktemp("tls") / "theirs")
    made.issue("client")
    return made


def _options(ours: Authority, certificate: str) -> tuple[str, ...]:
    files = {"ca": "ca.pem", "cert": f"{certificate}.pem", "key": f"{certificate}.key"}
    return (
        "--require-secure-transport=ON",
        "--skip-name-resolve",
        *(f"--ssl-{name}={ours[file]}" for name, file in files.items()),
    )


@pytest.fixture(scope="module")
def strict_server(ours: Authority, server_with: Callable[..., PrivateServer]) -> PrivateServer:
    """A server that takes no connection without TLS, with users "plain" and "certified" (X509)."""
    server = server_with(*_options(ours, "server"))
    for user, more in {"plain": "", "certified": "REQUIRE X509"}.items():
        sql(server.url(), f"CREATE USER '{user}'@'127.0.0.1' IDENTIFIED BY '{PASSWORD}' {more}")
        sql(server.url(), f"GRANT ALL ON *.* TO '{user}'@'127.0.0.1'")
    return server


Reach = Callable[..., Deployment]


@pytest.fixture
def reach(database: Callable[..., str], strict_server: PrivateServer, tmp_path: Path) -> Reach:
    """Give a deployment whose databases are reached as a user, with these arguments of the URL."""
    urls = {cell: database(strict_server) for cell in ("api", "c1")}
    for url in urls.values():
        execute(url, TABLE)
    add(urls["api"], "t", {"k": "a", "v": 1})

    def reach(user: str, port: int = 0, **arguments: str) -> Deployment:
        reached = {}
        for cell, url in urls.items():
            made = sa.make_url(url).set(username=user, password=PASSWORD, query=arguments)
            made = made.set(port=port or made.port)
            reached[cell] = made.render_as_string(hide_password=False)
        return Deployment(urls=reached, folder=tmp_path).rule_file(RULES)

    return reach


def lost(done: Done) -> str:
    """Return why the child could not be reached; no secret is in what was said."""
    assert done.code == 4, done.said
    assert PASSWORD not in done.said and KEY_PASSWORD not in done.said
    error = str(done.cell("c1")["error"])
    assert "cannot connect to c1 at" in error
    return error


def test_a_server_that_requires_tls_is_repaired_and_taken_back(reach: Reach, ours: Authority) -> None:
    """With ``ssl_ca`` alone: a private CA, and a certificate for the address that the URL has."""
    cells = reach("plain", ssl_ca=ours["ca.pem"])
    done = cells.repair()
    assert (done.code, done.cell("c1")["changes"]["applied"]) == (0, 1)
    assert cells.json("undo", done.report["run"], "--yes").code == 0
    assert cells.json("diff").code == 1
    assert cells.json("history").code == 0


@pytest.mark.parametrize("name", ["client", "locked"])
def test_a_user_who_needs_a_certificate_shows_it(name: str, reach: Reach, ours: Authority) -> None:
    """REQUIRE X509: with ``ssl_cert`` and ``ssl_key``, the key with a password or without."""
    password = {"ssl_key_password": KEY_PASSWORD} if name == "locked" else {}
    given = {"ssl_cert": ours[f"{name}.pem"], "ssl_key": ours[f"{name}.key"], **password}
    assert reach("certified", ssl_ca=ours["ca.pem"], **given).json("diff").code == 1
    assert reach("certified", ssl_verify="none", **given).json("diff").code == 1
    error = lost(reach("certified", ssl_ca=ours["ca.pem"]).json("diff"))
    assert "Access denied for user 'certified'" in error
    assert "needs a certificate: see ssl_cert" in error


def test_a_server_of_another_ca_is_refused(reach: Reach, ours: Authority, theirs: Authority) -> None:
    """Whether the host is verified or the CA alone; with the system's CAs too; 'none' trusts anybody."""
    for verify in ({}, {"ssl_verify": "identity"}, {"ssl_verify": "ca"}, {"ssl_verify_cert": "true"}):
        error = lost(reach("plain", ssl_ca=theirs["ca.pem"], **verify).json("diff"))
        assert "CERTIFICATE_VERIFY_FAILED" in error
        assert "ssl_ca" in error  # what to look at
    assert "CERTIFICATE_VERIFY_FAILED" in lost(reach("plain", ssl_verify="identity").json("diff"))
    assert reach("plain", ssl_verify="none").json("diff").code == 1
    assert reach("plain", ssl_ca=theirs["ca.pem"], ssl_verify="none").json("diff").code == 1
    # PyMySQL forgets the CA when it gets these from SQLAlchemy.
    for more in (
        {"ssl_verify_cert": "true"},
        {"ssl_verify_identity": "true"},
        {"ssl_mode": "VERIFY_IDENTITY"},
    ):
        assert reach("plain", ssl_ca=ours["ca.pem"], **more).json("diff").code == 1


def test_a_certificate_for_another_host_is_refused(
    reach: Reach, ours: Authority, server_with: Callable[..., PrivateServer]
) -> None:
    """Our CA signed it, but for 192.0.2.1: refused, unless the CA alone is verified."""
    other = server_with(*_options(ours, "elsewhere"))
    sql(other.url(), f"CREATE OR REPLACE USER 'plain'@'127.0.0.1' IDENTIFIED BY '{PASSWORD}'")
    error = lost(reach("plain", other.port, ssl_ca=ours["ca.pem"]).json("diff"))
    assert "IP address mismatch" in error
    for lax in ({"ssl_verify": "ca"}, {"ssl_check_hostname": "false"}, {"ssl_mode": "verify_ca"}):
        error = lost(reach("plain", other.port, ssl_ca=ours["ca.pem"], **lax).json("diff"))
        assert "Unknown database" in error or "Access denied" in error  # let in, as far as TLS goes


def test_a_connection_without_tls_fails_clearly(reach: Reach) -> None:
    """A server may say no more than "Access denied": then cellsync says what else it may mean. Exit 4."""
    error = lost(reach("plain", ssl_disabled="true").json("diff"))
    if "Access denied" in error:
        assert "where it requires TLS: see ssl_ca" in error
    else:  # since MariaDB 11.4
        assert "insecure transport are prohibited" in error


def test_a_server_without_tls_is_refused_where_tls_was_asked_for(
    reach: Reach, server, ours: Authority
) -> None:  # type: ignore[no-untyped-def]
    """Nobody is sent a password in the clear who was to get it encrypted."""
    error = lost(reach("plain", server.port, ssl_ca=ours["ca.pem"]).json("diff"))
    # Since MariaDB 11.4 a server makes itself a certificate, which is not of the CA that was asked for.
    assert re.search("SSL is required but the server doesn't support it|certificate verify failed", error)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"ssl_ca": "none.pem"}, "the ssl_ca {none.pem} cannot be read: No such file"),
        ({"ssl_ca": "client.key"}, "the ssl_ca {client.key} cannot be read: it holds no certificate"),
        ({"ssl_cert": "client.pem"}, "ssl_cert {client.pem} or its key {client.pem} cannot be used"),
        (
            {"ssl_cert": "client.pem", "ssl_key": "none.key"},
            "the ssl_key {none.key} cannot be read: No such file",
        ),
        ({"ssl_cert": "client.pem", "ssl_key": "server.key"}, "{server.key} does not belong to the ssl_cert"),
        ({"ssl_cert": "locked.pem", "ssl_key": "locked.key"}, "ssl_key_password is not its password"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(
    arguments: dict[str, str], said: str, reach: Reach, ours: Authority
) -> None:
    """Its argument, its path and why; a locked key is not asked for on the terminal."""
    error = lost(reach("plain", **{name: ours[file] for name, file in arguments.items()}).json("diff"))
    for file in ("none.pem", "client.key", "client.pem", "none.key", "server.key"):
        said = said.replace(f"{{{file}}}", ours[file])
    assert said in error


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            {"ssl_cacert": "/x"},
            "ssl_cacert is not known: the arguments for TLS are ssl_ca, ssl_cert, ssl_key",
        ),
        ({"ssl_verify": PASSWORD}, "ssl_verify must be one of identity, ca, none"),
        ({"ssl_key": "/x"}, "ssl_key needs ssl_cert"),
        ({"ssl_disabled": "true", "ssl_ca": "/x"}, "TLS is switched off, and there are arguments for it"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_at_once(
    arguments: dict[str, str], said: str, reach: Reach
) -> None:
    """Exit 2 with the place in the cell file: a misspelled argument would leave the door open."""
    done = reach("plain", **arguments).json("diff")
    assert done.code == 2
    assert said in done.err
    assert "cellsync.yaml:1:" in done.err
    assert PASSWORD not in done.said


def test_the_files_are_relative_to_the_cell_file(reach: Reach, ours: Authority, tmp_path: Path) -> None:
    """As its SQLite files are: a cron job has another working directory."""
    (tmp_path / "ca.pem").write_bytes(Path(ours["ca.pem"]).read_bytes())
    cells = reach("plain", ssl_ca="ca.pem")
    assert cells.json("diff").code == 1
    (tmp_path / "ca.pem").unlink()
    assert str(tmp_path / "ca.pem") in lost(cells.json("diff"))


def test_an_option_file_may_name_the_files(reach: Reach, ours: Authority, tmp_path: Path) -> None:
    """``defaults_file`` with ssl-ca, ssl-cert and ssl-key does what the arguments of the URL do."""
    files = {"ca": "ca.pem", "cert": "client.pem", "key": "client.key"}
    lines = ["[client]", *(f"ssl-{name} = {ours[file]}" for name, file in files.items())]
    (tmp_path / "my.cnf").write_text("\n".join(lines) + "\n")
    cells = reach("certified")
    text = cells.config.read_text().replace('{"name"', '{defaults_file: my.cnf, "name"')
    cells.config.write_text(text)
    assert cells.json("diff").code == 1
