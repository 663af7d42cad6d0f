"""The run's own certificate authority and what it signs: written once per run, thrown away with it."""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SERVER_IPS = ("127.0.0.1", "10.96.255.1", "10.96.0.1")
SERVER_NAMES = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")
API_SERVER_URL = "https://10.96.255.1:6443"
VALID_DAYS = 30

Key = ec.EllipticCurvePrivateKey


@dataclass(frozen=True)
class Client:
    """A client certificate: file name, user name, groups."""

    file: str
    user: str
    groups: tuple[str, ...] = ()


ADMIN = Client("admin", "kubernetes-admin", ("system:masters",))
CONTROLLER_MANAGER = Client("kube-controller-manager", "system:kube-controller-manager")
SCHEDULER = Client("kube-scheduler", "system:kube-scheduler")
KWOK = Client("kwok", "kwok", ("system:masters",))
ENVOY_GATEWAY = Client("envoy-gateway", "envoy-gateway", ("system:masters",))
PROMETHEUS = Client("prometheus", "prometheus")
CLIENTS = (ADMIN, CONTROLLER_MANAGER, SCHEDULER, KWOK, ENVOY_GATEWAY, PROMETHEUS)


def private_pem(key: Key | rsa.RSAPrivateKey) -> bytes:
    """Unencrypted PKCS #8."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def make_authority(now: dt.datetime) -> tuple[x509.Certificate, Key]:
    """A self-signed certificate authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "wattzoo-e2e")])
    return sign(x509.BasicConstraints(ca=True, path_length=0), name, key, name, key, now, []), key


def sign(
    constraints: x509.BasicConstraints,
    subject: x509.Name,
    key: Key,
    issuer: x509.Name,
    issuer_key: Key,
    now: dt.datetime,
    extensions: Sequence[x509.ExtensionType],
) -> x509.Certificate:
    """A certificate that was valid an hour ago already (clocks differ) and stays so for VALID_DAYS."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=VALID_DAYS))
        .add_extension(constraints, critical=True)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def make_client(client: Client, ca: x509.Certificate, ca_key: Key, now: dt.datetime) -> tuple[bytes, bytes]:
    """(certificate, key) in PEM: the common name is the user, organisations are its groups."""
    key = ec.generate_private_key(ec.SECP256R1())
    parts = [x509.NameAttribute(NameOID.COMMON_NAME, client.user)]
    parts += [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in client.groups]
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    constraints = x509.BasicConstraints(ca=False, path_length=None)
    certificate = sign(constraints, x509.Name(parts), key, ca.subject, ca_key, now, [usage])
    return certificate.public_bytes(serialization.Encoding.PEM), private_pem(key)


def make_server(ca: x509.Certificate, ca_key: Key, now: dt.datetime) -> tuple[bytes, bytes]:
    """(certificate, key) in PEM for the API server."""
    key = ec.generate_private_key(ec.SECP256R1())
    names: list[x509.GeneralName] = [x509.IPAddress(ipaddress.ip_address(ip)) for ip in SERVER_IPS]
    names += [x509.DNSName(name) for name in SERVER_NAMES]
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kube-apiserver")])
    constraints = x509.BasicConstraints(ca=False, path_length=None)
    certificate = sign(constraints, subject, key, ca.subject, ca_key, now, [usage, x509.SubjectAlternativeName(names)])
    return certificate.public_bytes(serialization.Encoding.PEM), private_pem(key)


def render_kubeconfig(ca_pem: bytes, user: str, credentials: dict[str, str]) -> str:
    """A kubeconfig (JSON, which is YAML) with one cluster, one user, one context."""
    authority = base64.b64encode(ca_pem).decode()
    cluster = {"server": API_SERVER_URL, "certificate-authority-data": authority}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "wattzoo-e2e", "cluster": cluster}],
        "users": [{"name": user, "user": credentials}],
        "contexts": [{"name": user, "context": {"cluster": "wattzoo-e2e", "user": user}}],
        "current-context": user,
    }
    return json.dumps(document, indent=1)


def client_credentials(certificate: bytes, key: bytes) -> dict[str, str]:
    """The `user` part of a kubeconfig for a client certificate."""
    return {
        "client-certificate-data": base64.b64encode(certificate).decode(),
        "client-key-data": base64.b64encode(key).decode(),
    }


def write_certificates(folder: Path, now: dt.datetime) -> None:
    """Write ca.crt, server.{crt,key}, service-account.{key,pub} and <client>.{crt,key,kubeconfig} into `folder`."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    ca, ca_key = make_authority(now)
    ca_pem = ca.public_bytes(serialization.Encoding.PEM)
    files = {"ca.crt": ca_pem}
    files["server.crt"], files["server.key"] = make_server(ca, ca_key, now)
    signer = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    files["service-account.key"] = private_pem(signer)
    files["service-account.pub"] = signer.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    for client in CLIENTS:
        certificate, key = make_client(client, ca, ca_key, now)
        files[f"{client.file}.crt"], files[f"{client.file}.key"] = certificate, key
        kubeconfig = render_kubeconfig(ca_pem, client.user, client_credentials(certificate, key))
        files[f"{client.file}.kubeconfig"] = kubeconfig.encode()
    for name, content in files.items():
        (folder / name).write_bytes(content)
        (folder / name).chmod(0o600)
