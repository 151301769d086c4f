//! Certificates of the links between nodes: each node shows its own and takes those that the cluster's authorities have signed.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use arc_swap::ArcSwap;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;

use crate::config::ClusterTls;
use crate::node::tls::{certificates, private_key};

/// Both sides of a link. New links use what is in it then.
#[derive(Clone)]
pub(crate) struct LinkTls {
    pub(crate) server: Arc<ArcSwap<rustls::ServerConfig>>,
    pub(crate) client: Arc<ArcSwap<rustls::ClientConfig>>,
}

impl LinkTls {
    /// Reads the certificates. Blocking.
    ///
    /// # Errors
    /// A file that cannot be read or does not hold what it should, with its key and path.
    pub(crate) fn load(files: &ClusterTls) -> anyhow::Result<LinkTls> {
        let (server, client) = read(files)?;
        Ok(LinkTls { server: Arc::new(ArcSwap::from_pointee(server)), client: Arc::new(ArcSwap::from_pointee(client)) })
    }

    /// Reads them again, for links that begin from now on. Blocking.
    ///
    /// # Errors
    /// As [`LinkTls::load`]; the old ones stay.
    pub(crate) fn reload(&self, files: &ClusterTls) -> anyhow::Result<()> {
        let (server, client) = read(files)?;
        self.server.store(Arc::new(server));
        self.client.store(Arc::new(client));
        Ok(())
    }
}

fn read(files: &ClusterTls) -> anyhow::Result<(rustls::ServerConfig, rustls::ClientConfig)> {
    let chain = certificates("cluster.certfile", &files.certfile)?;
    let key = private_key("cluster.keyfile", &files.keyfile)?;
    let roots = Arc::new(authorities(&files.cafile)?);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider)).build();
    let verifier = verifier.context("cluster.cafile: no authority in it can be used")?;
    let versions = &[&rustls::version::TLS13];
    let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.clone(), key.clone_key())
        .context("cluster.certfile and cluster.keyfile do not belong together")?;
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .context("cluster.certfile and cluster.keyfile do not belong together")?;
    Ok((server, client))
}

fn authorities(path: &Path) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for authority in certificates("cluster.cafile", path)? {
        roots.add(authority).with_context(|| format!("cluster.cafile: cannot use {}", path.display()))?;
    }
    Ok(roots)
}
