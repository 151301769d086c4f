//! The self-signed certificate that the QUIC door uses when none is configured: made once, kept in the data directory.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context;
use rustls::crypto::ring;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

const CERTIFICATE_FILE: &str = "quic-cert.pem";
const KEY_FILE: &str = "quic-key.pem";

/// Names that the certificate is good for, beside the host that clients are told to connect to.
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// The TLS settings with the certificate of `data_dir` (`quic-cert.pem`, `quic-key.pem`), which is made if it is missing;
/// `host` is the node's advertised host.
///
/// # Errors
/// The files cannot be read, parsed or written.
pub fn certificate(data_dir: &Path, host: &str) -> anyhow::Result<rustls::ServerConfig> {
    let (chain, key) = load_or_make(data_dir, host)?;
    rustls::ServerConfig::builder_with_provider(ring::default_provider().into())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .with_context(|| format!("{CERTIFICATE_FILE} and {KEY_FILE} in {} do not fit together", data_dir.display()))
}

fn load_or_make(data_dir: &Path, host: &str) -> anyhow::Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let (certificate, key) = (data_dir.join(CERTIFICATE_FILE), data_dir.join(KEY_FILE));
    // The certificate is written last: with it, both are there.
    if !certificate.exists() {
        fs::create_dir_all(data_dir).with_context(|| format!("cannot create {}", data_dir.display()))?;
        make(&certificate, &key, host)?;
    }
    let unreadable = |path: &Path| format!("cannot read {}; delete it to have a new one made", path.display());
    let chain = CertificateDer::pem_file_iter(&certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| unreadable(&certificate))?;
    anyhow::ensure!(!chain.is_empty(), "no certificate in {}; delete it to have a new one made", certificate.display());
    let key = PrivateKeyDer::from_pem_file(&key).with_context(|| unreadable(&key))?;
    Ok((chain, key))
}

fn make(certificate: &Path, key: &Path, host: &str) -> anyhow::Result<()> {
    let mut names: Vec<String> = NAMES.iter().map(|name| (*name).to_owned()).collect();
    if !host.is_empty() && !names.iter().any(|name| name == host) {
        names.push(host.to_owned());
    }
    let made = rcgen::generate_simple_self_signed(names).context("cannot make a self-signed certificate")?;
    write_secret(key, &made.signing_key.serialize_pem())?;
    write_secret(certificate, &made.cert.pem())
}

/// Writes a file that only its owner may read, whole or not at all.
fn write_secret(path: &Path, text: &str) -> anyhow::Result<()> {
    let partial = path.with_extension("pem.partial");
    let write = || -> std::io::Result<()> {
        // A partial file of an earlier run may have other permissions.
        match fs::remove_file(&partial) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&partial, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_certificate_is_made_once_and_kept_private() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let first = load_or_make(&data, "gateway.example").unwrap();
        assert_eq!(load_or_make(&data, "gateway.example").unwrap(), first);
        for file in [CERTIFICATE_FILE, KEY_FILE] {
            let mode = fs::metadata(data.join(file)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
        assert_eq!(fs::read_dir(&data).unwrap().count(), 2, "no partial files stay");
        certificate(&data, "gateway.example").unwrap();
    }

    #[test]
    fn a_broken_certificate_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(CERTIFICATE_FILE), "nonsense").unwrap();
        let error = certificate(folder.path(), "localhost").unwrap_err();
        assert!(format!("{error:#}").contains("delete it to have a new one made"), "{error:#}");
    }
}
