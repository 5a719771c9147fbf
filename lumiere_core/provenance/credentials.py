"""Content Credentials (C2PA): a signed statement in the file that a generative model made it.

The official library, c2pa-python, is used where it is installed; a person signs with a certificate of their own, which
two environment variables name. Nothing of it can be set by a workflow.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from ..files import atomic

CERTIFICATE, KEY = "LUMIERE_C2PA_CERTIFICATE", "LUMIERE_C2PA_KEY"
SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"


def wanted() -> tuple[Path, Path] | None:
    """Return certificate chain and private key that files are to be signed with; None = none.

    Raises:
        ValueError: only one of the two is named, or the library is missing.
        FileNotFoundError: a named file is not there.
    """
    named = [os.environ.get(name) for name in (CERTIFICATE, KEY)]
    if not any(named):
        return None
    if not all(named):
        raise ValueError(f"{CERTIFICATE} and {KEY} must be set both (PEM files), or neither.")
    paths = Path(named[0]), Path(named[1])
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"no file {path}, which {CERTIFICATE} or {KEY} names.")
    if not installed():
        raise ValueError(f"{CERTIFICATE} is set, and signing needs the package c2pa-python; install it.")
    return paths


def installed() -> bool:
    try:
        import c2pa  # noqa: F401
    except ImportError:
        return False
    return True


def sign(path: Path, certificate: Path, key: Path, statement: str) -> None:
    """Sign a media file in place: made by a trained model, and by which one. Any time server is left out.

    Args:
        certificate, key: PEM, of ES256; the chain begins with the signer's own certificate.
        statement: what made it, as the label says it.

    Raises:
        ValueError: the library refuses the file, the certificate or the key.
    """
    import c2pa

    created = {"action": "c2pa.created", "digitalSourceType": SOURCE, "parameters": {"description": statement}}
    manifest = {
        "claim_generator_info": [{"name": "Lumiere node pack"}],
        "title": path.name,
        "assertions": [{"label": "c2pa.actions", "data": {"actions": [created]}}],
    }
    info = c2pa.C2paSignerInfo(
        alg=c2pa.C2paSigningAlg.ES256, sign_cert=certificate.read_bytes(), private_key=key.read_bytes(), ta_url=None
    )
    try:
        with atomic(path) as partial:
            partial.unlink(missing_ok=True)  # the library makes its own file
            c2pa.Builder(json.dumps(manifest)).sign_file(str(path), str(partial), c2pa.Signer.from_info(info))
    except c2pa.C2paError as error:
        raise ValueError(f"{path.name} cannot be signed with {certificate.name}: {error}") from error


def sign_if_wanted(path: Path, statement: str) -> None:
    """Sign a file where a certificate is named (see `wanted`)."""
    paths = wanted()
    if paths:
        sign(path, *paths, statement)


def read(path: Path) -> list[str]:
    """Return what a file's Content Credentials say, as lines of text.

    Raises:
        ValueError: credentials that are damaged.
    """
    if not installed():
        return ["not read: the package c2pa-python is not installed"]
    import c2pa

    try:
        with c2pa.Reader(str(path)) as reader:
            store = json.loads(reader.json())
    except (c2pa.C2paError, ValueError, RecursionError) as error:
        if "ManifestNotFound" in str(error) or "not supported" in str(error).lower():
            return ["none"]
        return [f"damaged: {error}"]
    try:
        return _statements(store)
    except (KeyError, TypeError, AttributeError) as error:  # signed by nobody who keeps to the standard
        return [f"damaged: what is signed is not laid out as the standard says ({error!r:.80})"]


def _statements(store: dict) -> list[str]:
    """Say what the active manifest of a file's store claims."""
    manifest = store["manifests"][store["active_manifest"]]
    makers = [info.get("name", "") for info in manifest.get("claim_generator_info", ())]
    lines = [f"claimed by {', '.join(filter(None, makers)) or manifest.get('claim_generator', 'nobody')}"]
    for assertion in manifest.get("assertions", ()):
        for action in assertion.get("data", {}).get("actions", ()):
            source = str(action.get("digitalSourceType", "")).rsplit("/", 1)[-1]
            words = [action.get("action", ""), source, action.get("parameters", {}).get("description", "")]
            lines.append("; ".join(filter(None, words)))
    signature = manifest.get("signature_info", {})
    lines.append(f"signed by {signature.get('common_name') or signature.get('issuer') or 'nobody'}")
    wrong = [status["code"] for status in store.get("validation_status", ())]
    lines.append(f"validation: {', '.join(wrong) if wrong else 'valid and trusted'}")
    return lines
