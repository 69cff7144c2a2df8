# SPDX-License-Identifier: MIT
"""``aemp gencert`` and ``aemp ca``: a certificate that all nodes share, or a CA that issues one for each node.

:mod:`aemp_gevent.wire.credentials` checks them. This is a CA for private networks only: it cannot revoke
certificates, and its key is a file, which belongs on an operator's computer.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path

import click
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from aemp_command.group import Group
from aemp_gevent.cli.output import echo
from aemp_gevent.cli.private_files import write_private
from aemp_gevent.cli.profile_file import ProfileFile
from aemp_gevent.cli.set_up import changes, set_value
from aemp_gevent.errors import CertificateError
from aemp_gevent.runtime.quoting import quoted
from aemp_gevent.wire.certified_names import NAME_PREFIX
from aemp_gevent.wire.credentials import Credentials

SHARED_DAYS = 3650
"""The same as AnyEvent::MP's. It is long because changing the certificate means to stop the whole network."""
CA_DAYS = 3650
NODE_DAYS = 365

_CLOCK_SKEW = timedelta(hours=1)
"""How far a node's clock may be behind without rejecting a new certificate."""

_MAX_CN = 64

_CA_KEY = "ca.key"
_CA_CERTIFICATE = "ca.crt"

_days = click.IntRange(1, 36500)


@click.command()
@click.option(
    "--days", type=_days, metavar="DAYS", default=SHARED_DAYS, show_default=True, help="How long it is valid."
)
@changes
def gencert(file: ProfileFile, days: int) -> None:
    """Generate a self-signed certificate that all nodes of a network share.

    Like a secret, it admits everyone who has it and its key; and links are encrypted. Certificate and key are stored
    in the profile file itself, as AnyEvent::MP does.
    """
    key = _new_key()
    builder = _builder("aemp: shared by all nodes", key, days).issuer_name(_name("aemp: shared by all nodes"))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    pem = _pem(key) + _pem_of(builder.sign(key, hashes.SHA256()))
    Credentials(pem)  # do not store what we cannot use
    set_value(file, "cert", pem.decode())


@click.group(cls=Group)
def ca() -> None:
    """Run a certificate authority, which gives each node its own certificate to prove its node ID."""


def _folder_option() -> click.Option:
    return click.Option(
        ["--dir", "folder"],
        type=click.Path(file_okay=False, path_type=Path),
        help="The CA's folder (default: 'ca' next to the profile file).",
    )


def _folder(given: Path | None) -> Path:
    return given if given is not None else ProfileFile().path.parent / "ca"


@click.command()
@click.option("--name", default="aemp: CA of a network", show_default=True, help="The CA's name.")
@click.option("--days", type=_days, metavar="DAYS", default=CA_DAYS, show_default=True, help="How long it is valid.")
def init(folder: Path | None, name: str, days: int) -> None:
    """Make a CA: a key and its certificate.

    Anyone who has the key can claim any node ID, so do not keep it on a node's host.
    """
    folder = _folder(folder)
    if not 0 < len(name) <= _MAX_CN:
        raise click.UsageError(f"--name must have 1 to {_MAX_CN} characters")
    for path in (folder / _CA_KEY, folder / _CA_CERTIFICATE):
        if path.exists():
            raise click.ClickException(f"{path} exists: this folder already has a CA; choose another with --dir")
    key = _new_key()
    builder = _builder(name, key, days).issuer_name(_name(name))
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    certificate = builder.add_extension(usage, critical=True).sign(key, hashes.SHA256())
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(folder / _CA_KEY, _pem(key))
        write_private(folder / _CA_CERTIFICATE, _pem_of(certificate))
    except OSError as error:
        raise click.ClickException(f"{folder}: {error.strerror or error}") from error
    echo(f"wrote {folder / _CA_KEY}: the CA's key, which you must keep secret")
    echo(f"wrote {folder / _CA_CERTIFICATE}: its certificate, valid until {_end(certificate)}")
    echo("next: aemp ca issue NODE, for each node")


@click.command()
@click.argument("node", metavar="NODE")
@click.option("--also", metavar="NODE", multiple=True, help="Another node ID to certify; repeatable.")
@click.option("--days", type=_days, metavar="DAYS", default=NODE_DAYS, show_default=True, help="How long it is valid.")
@click.option(
    "-o", "--out", type=click.Path(dir_okay=False, path_type=Path), help="The file to write (default: NODE.pem)."
)
@click.option("--renew", is_flag=True, help="Replace the file if it exists.")
def issue(folder: Path | None, node: str, also: tuple[str, ...], days: int, out: Path | None, renew: bool) -> None:
    """Issue a node's certificate: a file with its new key, its certificate, and the CA's certificate.

    NODE is the node's ID. With a * at the end it covers all IDs that begin with it: 'worker/*', '10.0.0.7:*'. The
    commands of aemp are nodes, too: to use them you need a certificate for 'aemp/*'.
    """
    folder = _folder(folder)
    names = (node, *also)
    for name in names:
        _check_name(name)
    key_of_ca, certificate_of_ca = _read_ca(folder)
    path = out if out is not None else Path(re.sub(r"[^A-Za-z0-9.-]+", "_", node).strip("._") + ".pem")
    if path.name == ".pem":
        path = Path("node.pem")
    if path.exists() and not renew:
        raise click.ClickException(f"{path} exists; replace it with --renew, or write another file with --out")
    if path.exists():
        _check_renewal(path, names)
    key = _new_key()
    certificate = _issue(names, key, days, key_of_ca, certificate_of_ca)
    pem = _pem(key) + _pem_of(certificate) + _pem_of(certificate_of_ca)
    Credentials(pem)
    try:
        write_private(path, pem)
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror or error}") from error
    echo(f"wrote {path}: for {', '.join(names)}, valid until {_end(certificate)}")
    if renew:
        return
    echo("next: copy it to the node's host, readable by its user only (mode 0600), and run there:")
    named = "" if node.endswith("*") else f" setnodeid {shlex.quote(node)}"
    echo(f"  aemp profile NAME setcert {shlex.quote(path.name)}{named} set require_tls yes")


for _command in (init, issue):
    _command.params.append(_folder_option())
    ca.add_command(_command)


def _issue(
    names: Sequence[str],
    key: ec.EllipticCurvePrivateKey,
    days: int,
    key_of_ca: CertificateIssuerPrivateKeyTypes,
    certificate_of_ca: x509.Certificate,
) -> x509.Certificate:
    end_of_ca = certificate_of_ca.not_valid_after_utc
    left = end_of_ca - datetime.now(timezone.utc)
    if left < timedelta(days=days):
        if left < timedelta(days=1):
            raise click.ClickException(f"the CA's own certificate expires on {_end(certificate_of_ca)}; make a new CA")
        days = left.days
        echo(f"aemp: the certificate is valid for {days} days only, because the CA's own expires then", err=True)
    usage = x509.ExtendedKeyUsage((ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH))
    uris = [x509.UniformResourceIdentifier(NAME_PREFIX + name) for name in names]
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(certificate_of_ca.public_key())  # type: ignore[arg-type]
    return (
        _builder(names[0][:_MAX_CN], key, days)
        .issuer_name(certificate_of_ca.subject)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=False)  # both, because either side of a link can be the client
        .add_extension(x509.SubjectAlternativeName(uris), critical=False)
        .add_extension(identifier, critical=False)
        .sign(key_of_ca, hashes.SHA256())
    )


def _check_renewal(path: Path, names: Sequence[str]) -> None:
    """Refuse to replace a certificate by one for other node IDs: its node would be refused by the others."""
    try:
        before = Credentials(path.read_bytes()).names
    except (OSError, CertificateError) as error:
        raise click.ClickException(f"{path} is not replaced: {error}") from error
    if set(before) != set(names):
        options = " ".join(
            ["ca issue", *map(shlex.quote, before[:1]), *(f"--also {shlex.quote(n)}" for n in before[1:])]
        )
        raise click.UsageError(f"{path} is for {', '.join(before)}, and must be renewed for the same IDs: {options}")


def _check_name(name: str) -> None:
    if not name.isascii() or not name.isprintable() or " " in name:
        raise click.UsageError(f"{quoted(name)} cannot be certified: names in certificates are ASCII without blanks")
    if "*" in name[:-1]:
        raise click.UsageError(f"{quoted(name)}: a * is allowed at the end only")
    if not name:
        raise click.UsageError("a certificate needs the ID of a node")


def _read_ca(folder: Path) -> tuple[CertificateIssuerPrivateKeyTypes, x509.Certificate]:
    paths = (folder / _CA_KEY, folder / _CA_CERTIFICATE)
    try:
        key_text, certificate_text = (path.read_bytes() for path in paths)
        key = serialization.load_pem_private_key(key_text, password=None)
        certificate = x509.load_pem_x509_certificate(certificate_text)
    except FileNotFoundError as error:
        raise click.ClickException(f"there is no CA in {folder}; make one with 'aemp ca init'") from error
    except OSError as error:
        raise click.ClickException(f"{folder}: {error.strerror or error}") from error
    except (ValueError, TypeError) as error:
        raise CertificateError(folder, f"the CA's key and certificate cannot be read: {error}") from None
    if key.public_key() != certificate.public_key():
        raise CertificateError(folder, f"{_CA_KEY} is not the key of {_CA_CERTIFICATE}")
    return key, certificate  # type: ignore[return-value]  # what a certificate can be signed with it was made with


def _new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(name: str, key: ec.EllipticCurvePrivateKey, days: int) -> x509.CertificateBuilder:
    now = datetime.now(timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _pem_of(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _end(certificate: x509.Certificate) -> str:
    return f"{certificate.not_valid_after_utc:%Y-%m-%d}"
