//! A door with security, for the tests: its users, its clients, and its restarts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use forebay_cluster::{Log, LogError, RealFiles};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Request, StrBytes};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::super::{Groups, KafkaDoor, MAX_CONNECTIONS, serve};
use super::door::{answer, frame};
use crate::client::kafka::{Bootstrap, Client, ClientSecurity};
use crate::config::{Config, Sources};
use crate::metrics::Metrics;
use crate::reader::Reader;
use crate::security::Security;

/// A log with a secured door, which can be closed and opened again.
pub(super) struct Secured {
    dir: tempfile::TempDir,
    flags: Vec<String>,
    open: Option<Open>,
    pub(super) address: SocketAddr,
}

struct Open {
    log: Log,
    metrics: Arc<Metrics>,
    security: Arc<Security>,
    shutdown: CancellationToken,
    serving: tokio::task::JoinHandle<()>,
}

/// SASL with all mechanisms, users `admin` (super user) and `alice`.
pub(super) const SASL: &[&str] = &[
    "kafka.security.protocol=SASL_PLAINTEXT",
    "kafka.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
    "kafka.super.users=User:admin",
    "users.admin=admin-secret",
    "users.alice=alice-secret",
];

/// The same with ACLs.
pub(super) fn with_acls() -> Vec<&'static str> {
    [SASL, &["kafka.authorizer.enable=true"]].concat()
}

impl Secured {
    pub(super) async fn open(flags: &[&str]) -> Secured {
        Secured::open_in(tempfile::tempdir().unwrap(), flags).await
    }

    pub(super) async fn open_in(dir: tempfile::TempDir, flags: &[&str]) -> Secured {
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let mut secured = Secured { dir, flags, open: None, address: ([127, 0, 0, 1], 0).into() };
        secured.start().await;
        secured
    }

    async fn start(&mut self) {
        let files = loop {
            match RealFiles::open(self.dir.path()) {
                Err(LogError::Locked) => tokio::time::sleep(Duration::from_millis(5)).await,
                opened => break opened.unwrap(),
            }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        self.address = listener.local_addr().unwrap();
        let log = super::clustered(files, false, self.address).await;
        let set = self.flags.clone();
        let config = Arc::new(Config::load(&Sources { set, ..Sources::default() }).unwrap());
        let metrics = Arc::new(Metrics::new());
        let security = Arc::new(Security::new(log.clone(), Arc::clone(&config)));
        security.start().await.unwrap();
        let door = KafkaDoor {
            log: log.clone(),
            reader: Reader::new(None),
            groups: Arc::new(Groups::new(Arc::clone(&metrics), &config)),
            metrics: Arc::clone(&metrics),
            security: Arc::clone(&security),
            tls: crate::node::tls::load(&config).unwrap().kafka.map(|tls| Arc::new(ArcSwap::from_pointee(tls))),
            config,
            max_connections: MAX_CONNECTIONS,
        };
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(serve(Arc::new(door), listener, shutdown.clone()));
        self.open = Some(Open { log, metrics, security, shutdown, serving });
    }

    /// Closes everything, and opens it again.
    pub(super) async fn restart(&mut self) {
        let Open { log, security, shutdown, serving, .. } = self.open.take().unwrap();
        shutdown.cancel();
        serving.await.unwrap();
        drop(security);
        log.cluster().unwrap().shutdown(Duration::from_secs(2)).await;
        tokio::task::spawn_blocking(move || log.shutdown()).await.unwrap();
        self.start().await;
    }

    pub(super) fn log(&self) -> &Log {
        &self.open.as_ref().unwrap().log
    }

    pub(super) fn security(&self) -> &Security {
        &self.open.as_ref().unwrap().security
    }

    pub(super) fn failures(&self) -> u64 {
        self.open.as_ref().unwrap().metrics.kafka.authentication_failures.get()
    }

    pub(super) async fn try_client(&self, properties: &str) -> anyhow::Result<Client> {
        let security = ClientSecurity::parse(properties)?;
        Client::connect(Bootstrap { addresses: self.address.to_string(), security }).await
    }

    pub(super) async fn log_in(&self, mechanism: &str, user: &str, password: &str) -> anyhow::Result<Client> {
        self.try_client(&properties("SASL_PLAINTEXT", mechanism, user, password)).await
    }

    pub(super) async fn raw(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// A bare connection on which `user` has logged in.
    pub(super) async fn raw_of(&self, user: &str, password: &str) -> TcpStream {
        let mut stream = self.raw().await;
        let named = SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str("PLAIN"));
        assert_eq!(call(&mut stream, &named, 1).await.unwrap().error_code, 0);
        let token = Bytes::from(format!("\0{user}\0{password}"));
        let token = SaslAuthenticateRequest::default().with_auth_bytes(token);
        assert_eq!(call(&mut stream, &token, 2).await.unwrap().error_code, 0);
        stream
    }
}

/// What a client's properties file says.
pub(super) fn properties(protocol: &str, mechanism: &str, user: &str, password: &str) -> String {
    let module = if mechanism == "PLAIN" { "plain.PlainLoginModule" } else { "scram.ScramLoginModule" };
    format!(
        "security.protocol={protocol}\nsasl.mechanism={mechanism}\nsasl.jaas.config=org.apache.kafka.common.security.{module} \
         required username=\"{user}\" password=\"{password}\";\n"
    )
}

/// Asks and waits for the answer; `None` when the door has closed the connection.
pub(super) async fn call<R: Request>(stream: &mut TcpStream, request: &R, version: i16) -> Option<R::Response> {
    stream.write_all(&frame(request, version, 7)).await.ok()?;
    answer(stream, version).await.map(|(_, response)| response)
}
