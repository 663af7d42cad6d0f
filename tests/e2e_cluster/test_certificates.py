from __future__ import annotations

import base64
import datetime as dt
import json
import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from e2e.cluster.certificates import ADMIN, CLIENTS, PROMETHEUS, SERVER_IPS, write_certificates

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("run") / "certificates"
    write_certificates(target, NOW)
    return target


def load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


@pytest.mark.parametrize("name", ["server", *(client.file for client in CLIENTS)])
def test_every_certificate_is_signed_by_the_authority_and_matches_its_key(folder: Path, name: str) -> None:
    load(folder / f"{name}.crt").verify_directly_issued_by(load(folder / "ca.crt"))

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_cert_chain(folder / f"{name}.crt", folder / f"{name}.key")  # raises when the key does not match


def test_server_certificate_names_every_address_clients_use(folder: Path) -> None:
    names = load(folder / "server.crt").extensions.get_extension_for_class(x509.SubjectAlternativeName).value

    assert {str(ip) for ip in names.get_values_for_type(x509.IPAddress)} == set(SERVER_IPS)


def test_only_named_clients_are_administrators(folder: Path) -> None:
    def groups(file: str) -> list[str]:
        subject = load(folder / f"{file}.crt").subject
        return [str(part.value) for part in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]

    assert groups(ADMIN.file) == ["system:masters"]
    assert groups(PROMETHEUS.file) == []


def test_kubeconfig_holds_the_credentials_it_was_made_for(folder: Path) -> None:
    document = json.loads((folder / "admin.kubeconfig").read_text())

    user = document["users"][0]["user"]
    assert base64.b64decode(user["client-certificate-data"]) == (folder / "admin.crt").read_bytes()
    authority = base64.b64decode(document["clusters"][0]["cluster"]["certificate-authority-data"])
    assert authority == (folder / "ca.crt").read_bytes()


def test_nobody_else_can_read_the_keys(folder: Path) -> None:
    modes = {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}

    assert modes == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
