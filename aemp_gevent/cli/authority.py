# SPDX-License-Identifier: MIT
"""Certificates: one that all nodes share, or a CA that issues one for each node.

What nodes make of them is in :mod:`aemp_gevent.wire.credentials`. This is not a CA for the world: it
revokes nothing, and its key lies in a file, whose place is an operator's computer.
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
from aemp_gevent.cli.private_files import write_private
from aemp_gevent.cli.profile_file import ProfileFile
from aemp_gevent.cli.setting_up import changes, set_value
from aemp_gevent.errors import CertificateError
from aemp_gevent.runtime.quoting import quoted
from aemp_gevent.wire.certified_names import NAME_PREFIX
from aemp_gevent.wire.credentials import Credentials

SHARED_DAYS = 3650
"""As AnyEvent::MP's: changing it means to stop the whole network."""
CA_DAYS = 3650
NODE_DAYS = 365

_CLOCK_SKEW = timedelta(hours=1)
"""How far behind a node's clock may be that is to believe a new certificate at once."""

_MAX_CN = 64

_CA_KEY = "ca.key"
_CA_CERTIFICATE = "ca.crt"

_days = click.IntRange(1, 36500)


@click.command()
@click.option("--days", type=_days, metavar="DAYS", default=SHARED_DAYS, show_default=True, help="How long it is good.")
@changes
def gencert(file: ProfileFile, days: int) -> None:
    """Generate a certificate, signed by itself, for all nodes of a network to share.

    Who has it and its key is in, as with a secret; and links are encrypted. Key and certificate are kept in the
    profile file itself, as AnyEvent::MP's are.
    """
    key = _new_key()
    builder = _builder("aemp: shared by all nodes", key, days).issuer_name(_name("aemp: shared by all nodes"))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    pem = _pem(key) + _pem_of(builder.sign(key, hashes.SHA256()))
    Credentials(pem)  # what we could not use ourselves is not kept
    set_value(file, "cert", pem.decode())


@click.group(cls=Group)
def ca() -> None:
    """Run a certificate authority: give each node a certificate of its own, which proves its node ID."""


def _folder_option() -> click.Option:
    return click.Option(
        ["--dir", "folder"],
        type=click.Path(file_okay=False, path_type=Path),
        help="Where the CA is kept; otherwise 'ca' beside the profile file.",
    )


def _folder(given: Path | None) -> Path:
    return given if given is not None else ProfileFile().path.parent / "ca"


@click.command()
@click.option("--name", default="aemp: CA of a network", show_default=True, help="What to call it.")
@click.option("--days", type=_days, metavar="DAYS", default=CA_DAYS, show_default=True, help="How long it is good.")
def init(folder: Path | None, name: str, days: int) -> None:
    """Make a CA: a key, and its certificate.

    With the key one can claim any node ID: do not keep it on a node's host.
    """
    folder = _folder(folder)
    if not 0 < len(name) <= _MAX_CN:
        raise click.UsageError(f"--name has 1 to {_MAX_CN} characters")
    for path in (folder / _CA_KEY, folder / _CA_CERTIFICATE):
        if path.exists():
            raise click.ClickException(f"{path} exists: there is a CA already; --dir says where to make another")
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
    click.echo(f"wrote {folder / _CA_KEY}: the key of the CA, for nobody else's eyes")
    click.echo(f"wrote {folder / _CA_CERTIFICATE}: its certificate, good until {_end(certificate)}")
    click.echo("next: aemp ca issue NODE, for each node")


@click.command()
@click.argument("node", metavar="NODE")
@click.option("--also", metavar="NODE", multiple=True, help="Another node ID that it is good for; may be repeated.")
@click.option("--days", type=_days, metavar="DAYS", default=NODE_DAYS, show_default=True, help="How long it is good.")
@click.option("-o", "--out", type=click.Path(dir_okay=False, path_type=Path), help="The file; otherwise NODE.pem.")
@click.option("--renew", is_flag=True, help="Replace the file if it exists.")
def issue(folder: Path | None, node: str, also: tuple[str, ...], days: int, out: Path | None, renew: bool) -> None:
    """Issue the certificate of a node: a file with its new key, the certificate, and that of the CA.

    NODE is the node's ID. With a * at the end it stands for all IDs that begin like it: 'worker/*', '10.0.0.7:*'. The
    commands of aemp are nodes, too: who uses them needs one for 'aemp/*'.
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
        raise click.ClickException(f"{path} exists: give --renew to replace it, or --out to write another file")
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
    click.echo(f"wrote {path}: for {', '.join(names)}, good until {_end(certificate)}")
    if renew:
        return
    click.echo("next: copy it to the node's host, where nobody else may read it (mode 0600), and there:")
    named = "" if node.endswith("*") else f" setnodeid {shlex.quote(node)}"
    click.echo(f"  aemp profile NAME setcert {shlex.quote(path.name)}{named} set require_tls yes")


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
            raise click.ClickException(f"the CA's own certificate expires on {_end(certificate_of_ca)}: make a new CA")
        days = left.days
        click.echo(f"aemp: only for {days} days, as the CA's own certificate expires then", err=True)
    usage = x509.ExtendedKeyUsage((ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH))
    uris = [x509.UniformResourceIdentifier(NAME_PREFIX + name) for name in names]
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(certificate_of_ca.public_key())  # type: ignore[arg-type]
    return (
        _builder(names[0][:_MAX_CN], key, days)
        .issuer_name(certificate_of_ca.subject)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=False)  # both, as chance decides which side is the client
        .add_extension(x509.SubjectAlternativeName(uris), critical=False)
        .add_extension(identifier, critical=False)
        .sign(key_of_ca, hashes.SHA256())
    )


def _check_renewal(path: Path, names: Sequence[str]) -> None:
    """Refuse to replace a certificate by one that is for others: its node would be shut out."""
    try:
        before = Credentials(path.read_bytes()).names
    except (OSError, CertificateError) as error:
        raise click.ClickException(f"{path} is not replaced: {error}") from error
    if set(before) != set(names):
        options = " ".join(
            ["ca issue", *map(shlex.quote, before[:1]), *(f"--also {shlex.quote(n)}" for n in before[1:])]
        )
        raise click.UsageError(f"{path} is for {', '.join(before)}, and is renewed for the same: {options}")


def _check_name(name: str) -> None:
    if not name.isascii() or not name.isprintable() or " " in name:
        raise click.UsageError(f"{quoted(name)} cannot stand in a certificate: a name there is ASCII, without blanks")
    if "*" in name[:-1]:
        raise click.UsageError(f"{quoted(name)}: a * means something at the end only")
    if not name:
        raise click.UsageError("a certificate needs the ID of a node")


def _read_ca(folder: Path) -> tuple[CertificateIssuerPrivateKeyTypes, x509.Certificate]:
    paths = (folder / _CA_KEY, folder / _CA_CERTIFICATE)
    try:
        key_text, certificate_text = (path.read_bytes() for path in paths)
        key = serialization.load_pem_private_key(key_text, password=None)
        certificate = x509.load_pem_x509_certificate(certificate_text)
    except FileNotFoundError as error:
        raise click.ClickException(f"there is no CA in {folder}: make one with aemp ca init") from error
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
