//! Mutual TLS: who has a certificate of the cluster's authority, and who has none.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::*;

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        roots
    }

    fn issue(&self, host: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![host.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
        (vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
    }

    /// A server with a certificate of this authority, which believes clients of `clients`.
    fn server(&self, host: &str, clients: &Authority) -> rustls::ServerConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(clients.roots()), provider.clone());
        let (chain, key) = self.issue(host);
        rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(chain, key)
            .unwrap()
    }

    /// A client that believes servers of this authority, with a certificate of `own`.
    fn client(&self, own: Option<&Authority>) -> ClientTls {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots());
        let config = match own {
            Some(authority) => {
                let (chain, key) = authority.issue("a-client");
                builder.with_client_auth_cert(chain, key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        Some(Arc::new(ArcSwap::from_pointee(config)))
    }
}

async fn serve(config: rustls::ServerConfig) -> (Running, Arc<ArcSwap<rustls::ServerConfig>>) {
    let tls = Arc::new(ArcSwap::from_pointee(config));
    let local = Local::new(identity(SERVER), kinds());
    (Running::with(local, everybody(), quick(), Some(tls.clone()), "127.0.0.1:0").await, tls)
}

fn links(server: &Running, tls: ClientTls) -> Links {
    links_of(Local::new(identity(CLIENT), kinds()), quick(), tls, server.address)
}

async fn fails(links: &Links) -> String {
    let failed = links.link(SERVER, Lane::Data, Duration::from_millis(700)).await.map(|_| ());
    let Err(LinkError::NotSent(why)) = failed else { panic!("a link was made") };
    why
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_of_one_authority_have_links_and_others_do_not() {
    let (ours, others) = (Authority::new("ours"), Authority::new("others"));
    let (server, _) = serve(ours.server("127.0.0.1", &ours)).await;
    let good = links(&server, ours.client(Some(&ours)));
    assert_eq!(echo(&good, Lane::Control, "private").await.unwrap(), "private");
    let megabytes = Body::new(Bytes::new(), vec![Bytes::from(vec![3; 1 << 20]); 20]);
    let answer = good.request(SERVER, Lane::Data, ECHO, 0, megabytes, LONG).await.unwrap();
    assert!(answer.len() == 20 << 20 && answer.iter().all(|byte| *byte == 3));

    let why = fails(&links(&server, ours.client(None))).await;
    assert!(why.contains("CertificateRequired"), "a client without a certificate: {why}");
    let why = fails(&links(&server, ours.client(Some(&others)))).await;
    assert!(why.contains("alert"), "a client of another authority: {why}");
    let why = fails(&links(&server, others.client(Some(&ours)))).await;
    assert!(why.contains("UnknownIssuer"), "a server of another authority: {why}");
    let (elsewhere, _) = serve(ours.server("other.example", &ours)).await;
    let why = fails(&links(&elsewhere, ours.client(Some(&ours)))).await;
    assert!(why.contains("certificate not valid for name"), "a server of another host: {why}");
    let why = fails(&links(&server, None)).await;
    assert!(why.contains("TLS"), "without TLS: {why}");
    let plain = Running::start(quick()).await;
    fails(&links(&plain, ours.client(Some(&ours)))).await;
    assert!(plain.local.counters.failed_handshakes.load(Ordering::Relaxed) > 0);
    assert!(server.recorder.begun().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_certificates_are_used_for_new_connections() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let (server, tls) = serve(old.server("127.0.0.1", &old)).await;
    let before = links(&server, old.client(Some(&old)));
    let link = before.link(SERVER, Lane::Control, LONG).await.unwrap();
    let after = links(&server, new.client(Some(&new)));
    fails(&after).await;

    tls.store(Arc::new(new.server("127.0.0.1", &new)));
    assert_eq!(echo(&after, Lane::Data, "new").await.unwrap(), "new");
    assert!(!link.is_ended(), "links that are up stay");
    assert_eq!(echo(&before, Lane::Control, "old").await.unwrap(), "old");
    fails(&before).await;
}
