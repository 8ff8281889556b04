//! Certificates that tests trust, and some that they do not.

use std::path::Path;
use std::process::Command;

use super::place;

/// Each `NAME.pem` with its key, `NAME.key`, and both together as `NAME.both`: `own` and `other` vouch for themselves,
/// without a name; `ca` has signed `named`, `renewed` and `client` for 127.0.0.1, and `other` has signed `stranger`.
const CERTIFICATES: &str = r#"
import datetime, ipaddress, os, sys
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

folder = sys.argv[1]

def make(name, issuer=None, authority=True):
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    signer, by = issuer or (key, subject)
    now = datetime.datetime.now(datetime.timezone.utc)
    day = datetime.timedelta(days=1)
    certificate = (x509.CertificateBuilder().subject_name(subject).issuer_name(by)
        .public_key(key.public_key()).serial_number(x509.random_serial_number())
        .not_valid_before(now - day).not_valid_after(now + day)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True))
    if not authority:
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        certificate = certificate.add_extension(x509.SubjectAlternativeName([address]), critical=False)
    certificate = certificate.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    for kind, content in ("pem", certificate), ("key", private), ("both", certificate + private):
        with open(f"{folder}/{name}.{kind}", "wb") as file:
            os.chmod(file.fileno(), 0o644 if kind == "pem" else 0o600)
            file.write(content)
    return key, subject

make("own")
other = make("other")
ca = make("ca")
for name in "named", "renewed", "client":
    make(name, ca, authority=False)
make("stranger", other, authority=False)
"#;

/// Makes them all in a folder.
pub fn make(folder: &Path) {
    // The environment that Tahoe-LAFS is installed in has what makes them.
    let python = place::root().join(".parts/venv/bin/python");
    let run = Command::new(&python).args(["-c", CERTIFICATES]).arg(folder).output();
    let run = run.unwrap_or_else(|error| panic!("{}: {error}", python.display()));
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
}
