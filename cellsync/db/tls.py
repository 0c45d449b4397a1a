"""Make the driver's TLS context of what a URL asks for."""

from __future__ import annotations

import functools
import ssl

from cellsync.model import Tls, Verify


def context(wanted: Tls) -> ssl.SSLContext:
    """Return the context of an encrypted connection.

    Raises ValueError, which names the argument and its file, for one that cannot be used.
    """
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = wanted.verify is Verify.IDENTITY
    made.verify_mode = ssl.CERT_NONE if wanted.verify is Verify.NONE else ssl.CERT_REQUIRED
    # MariaDB's and many a private CA's certificates lack what this asks for; Python 3.13 asks for it.
    made.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if wanted.verify is not Verify.NONE:
        _trust(made, wanted.ca)
    if wanted.cert is not None:
        _present(made, wanted, wanted.cert)
    return made


def _trust(made: ssl.SSLContext, ca: str | None) -> None:
    if ca is None:
        made.load_default_certs()
        return
    try:
        made.load_verify_locations(cafile=ca)
    except OSError as error:  # an SSLError is one too
        raise _unusable("ssl_ca", ca, error) from None


def _present(made: ssl.SSLContext, wanted: Tls, cert: str) -> None:
    password = wanted.key_password.reveal() if wanted.key_password else ""
    for name, file in (("ssl_cert", cert), ("ssl_key", wanted.key or cert)):
        try:
            with open(file, "rb"):
                pass
        except OSError as error:
            raise _unusable(name, file, error) from None
    try:
        # Without a password given here, OpenSSL would ask for one on the terminal, and wait.
        made.load_cert_chain(cert, wanted.key, lambda: password)
    except ssl.SSLError as error:
        if "KEY_VALUES_MISMATCH" in str(error):
            raise ValueError(f"the ssl_key {wanted.key} does not belong to the ssl_cert {cert}") from None
        locked = "it is no PEM file, or ssl_key_password is not its password"
        raise ValueError(
            f"the ssl_cert {cert} or its key {wanted.key or cert} cannot be used: {locked}"
        ) from None


def _unusable(name: str, file: str, error: OSError) -> ValueError:
    why = "it holds no certificate in PEM form" if isinstance(error, ssl.SSLError) else error.strerror
    return ValueError(f"the {name} {file} cannot be read: {why}")


@functools.cache
def unverified() -> ssl.SSLContext:
    """Return the context for a connection whose URL says nothing of TLS: encrypted where the server can.

    PyMySQL makes the same for each connection anew, and reads all certificates of the system for it,
    which takes longer than all of a small comparison and trusts nobody in the end.
    """
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    return made
