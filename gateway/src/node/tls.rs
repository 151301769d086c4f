//! Certificates: from the configured PEM files, or for QUIC a self-signed one made once and kept in the data directory.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::{ClientAuth, Config, TlsConfig};

/// Folder of the self-signed certificate in the data directory.
const FOLDER: &str = "tls";

/// The TLS settings of the doors that have TLS, read from disk.
pub struct TlsSettings {
    /// For `mqtts`; `None` without a configured certificate.
    pub tcp: Option<rustls::ServerConfig>,
    /// For `kafka`, where it speaks TLS.
    pub kafka: Option<rustls::ServerConfig>,
    /// For `quic`: TLS 1.3 only, as QUIC asks (RFC 9001).
    pub quic: rustls::ServerConfig,
}

/// Reads the certificates. Blocking.
///
/// # Errors
/// A file that cannot be read or does not hold what it should, with its key and path.
pub fn load(config: &Config) -> anyhow::Result<TlsSettings> {
    match configured(&config.tls)? {
        Some((certificates, key)) => {
            let tls12 = config.tls.allow_tls12;
            let server = |tls12, clients| server_config(&config.tls, tls12, clients, &certificates, &key);
            let kafka = match config.kafka.security_protocol.is_tls() {
                true => Some(server(tls12, config.kafka.ssl_client_auth)?),
                false => None,
            };
            let clients = mqtt_clients(&config.tls);
            Ok(TlsSettings { tcp: Some(server(tls12, clients)?), kafka, quic: server(false, clients)? })
        }
        None => {
            let (certificates, key) = self_signed(&config.node.data_dir, &config.node.advertised_host)?;
            let quic = server_config(&config.tls, false, mqtt_clients(&config.tls), &certificates, &key)?;
            Ok(TlsSettings { tcp: None, kafka: None, quic })
        }
    }
}

/// Checks that the configured certificates can be used, without making any.
///
/// # Errors
/// As [`load`].
pub fn check(config: &Config) -> anyhow::Result<()> {
    match configured(&config.tls)? {
        Some((certificates, key)) => {
            let (tls12, clients) = (config.tls.allow_tls12, mqtt_clients(&config.tls));
            server_config(&config.tls, tls12, clients, &certificates, &key).map(drop)
        }
        None => client_authorities(&config.tls).map(drop),
    }
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn configured(tls: &TlsConfig) -> anyhow::Result<Option<Identity>> {
    let (Some(certfile), Some(keyfile)) = (&tls.certfile, &tls.keyfile) else { return Ok(None) };
    Ok(Some((certificates("tls.certfile", certfile)?, private_key("tls.keyfile", keyfile)?)))
}

pub(crate) fn certificates(key: &str, path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let what = || format!("{key}: cannot use {}", path.display());
    let pem = fs::read(path).with_context(what)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let found = found.with_context(what)?;
    if found.is_empty() {
        return Err(anyhow::anyhow!("there is no PEM certificate in it")).with_context(what);
    }
    Ok(found)
}

pub(crate) fn private_key(key: &str, path: &Path) -> anyhow::Result<PrivateKeyDer<'static>> {
    let what = || format!("{key}: cannot use {}", path.display());
    let pem = fs::read(path).with_context(what)?;
    PrivateKeyDer::from_pem_slice(&pem).context("there is no unencrypted PEM private key in it").with_context(what)
}

fn client_authorities(tls: &TlsConfig) -> anyhow::Result<Option<RootCertStore>> {
    let Some(cafile) = &tls.cafile else { return Ok(None) };
    let mut roots = RootCertStore::empty();
    for authority in certificates("tls.cafile", cafile)? {
        roots.add(authority).with_context(|| format!("tls.cafile: cannot use {}", cafile.display()))?;
    }
    Ok(Some(roots))
}

/// Whether the MQTT doors ask clients for certificates.
fn mqtt_clients(tls: &TlsConfig) -> ClientAuth {
    match (tls.require_certificate, &tls.cafile) {
        (true, _) => ClientAuth::Required,
        (false, Some(_)) => ClientAuth::Requested,
        (false, None) => ClientAuth::None,
    }
}

fn server_config(
    tls: &TlsConfig,
    allow_tls12: bool,
    clients: ClientAuth,
    certificates: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
) -> anyhow::Result<rustls::ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions: &[&rustls::SupportedProtocolVersion] =
        if allow_tls12 { &[&rustls::version::TLS13, &rustls::version::TLS12] } else { &[&rustls::version::TLS13] };
    let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .context("TLS versions")?;
    let builder = match (clients, client_authorities(tls)?) {
        (ClientAuth::None, _) => builder.with_no_client_auth(),
        (_, Some(roots)) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let required = clients == ClientAuth::Required;
            let verifier = if required { verifier } else { verifier.allow_unauthenticated() };
            builder.with_client_cert_verifier(verifier.build().context("tls.cafile")?)
        }
        (_, None) => bail!("client certificates need tls.cafile"),
    };
    builder
        .with_single_cert(certificates.to_vec(), key.clone_key())
        .context("tls.certfile and tls.keyfile do not fit together")
}

/// The node's own certificate, made at the first start and kept, so that clients may pin it.
fn self_signed(data_dir: &Path, host: &str) -> anyhow::Result<Identity> {
    let folder = data_dir.join(FOLDER);
    let (certfile, keyfile) = (folder.join("self-signed.crt"), folder.join("self-signed.key"));
    if !(certfile.exists() && keyfile.exists()) {
        make_self_signed(&folder, &certfile, &keyfile, host)
            .with_context(|| format!("cannot make a certificate in {}", folder.display()))?;
    }
    let kept = "the self-signed certificate";
    Ok((certificates(kept, &certfile)?, private_key(kept, &keyfile)?))
}

fn make_self_signed(folder: &Path, certfile: &Path, keyfile: &Path, host: &str) -> anyhow::Result<()> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    if !names.iter().any(|name| name == host) {
        names.push(host.to_owned());
    }
    let made = rcgen::generate_simple_self_signed(names)?;
    fs::create_dir_all(folder)?;
    // The certificate last: once it is there, the key is too.
    write_whole(keyfile, made.signing_key.serialize_pem().as_bytes(), 0o600)?;
    write_whole(certfile, made.cert.pem().as_bytes(), 0o644)?;
    Ok(())
}

/// Writes a file so that after a crash it is whole or absent.
fn write_whole(path: &Path, content: &[u8], mode: u32) -> std::io::Result<()> {
    let temporary: PathBuf = path.with_extension("tmp");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    fn config(folder: &Path, set: &[&str]) -> Config {
        let set = set.iter().map(|flag| flag.replace("DIR", &folder.display().to_string())).collect();
        Config::load(&Sources { set, data_dir: Some(folder.to_path_buf()), ..Sources::default() }).unwrap()
    }

    #[test]
    fn the_self_signed_certificate_is_made_once_and_its_key_is_private() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path(), &[]);
        assert!(load(&config).unwrap().tcp.is_none());
        let first = fs::read(folder.path().join("tls/self-signed.crt")).unwrap();
        load(&config).unwrap();
        assert_eq!(fs::read(folder.path().join("tls/self-signed.crt")).unwrap(), first);
        let mode = fs::metadata(folder.path().join("tls/self-signed.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_is_no_certificate_is_named_with_its_key() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("cert.pem"), "nonsense").unwrap();
        let set = ["tls.certfile=DIR/cert.pem", "tls.keyfile=DIR/none.pem"];
        let error = format!("{:#}", load(&config(folder.path(), &set)).err().unwrap());
        assert!(error.contains("tls.certfile") && error.contains("cert.pem"), "{error}");
    }

    #[test]
    fn configured_certificates_serve_both_doors_and_check_clients() {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        fs::write(folder.path().join("c"), made.cert.pem()).unwrap();
        fs::write(folder.path().join("k"), made.signing_key.serialize_pem()).unwrap();
        let set = ["tls.certfile=DIR/c", "tls.keyfile=DIR/k", "tls.cafile=DIR/c", "tls.require_certificate=true"];
        let config = config(folder.path(), &set);
        check(&config).unwrap();
        assert!(load(&config).unwrap().tcp.is_some());
        assert!(!folder.path().join("tls").exists());
    }
}
