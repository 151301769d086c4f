//! How a client secures its connections: what Kafka's client properties say, TLS, and the login.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use kafka_protocol::messages::{SaslAuthenticateRequest, SaslHandshakeRequest};
use kafka_protocol::protocol::StrBytes;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use uuid::Uuid;

use super::connection::Connection;
use super::properties::{jaas, parse};
use super::stream::Stream;
use super::{Refused, check};
use crate::config::{SaslMechanism, SecurityProtocol};
use crate::security::scram::ScramMechanism;
use crate::security::scram_client::ScramClient;

/// How long a TLS handshake may take.
const TLS_TIMEOUT: Duration = Duration::from_secs(10);

/// What connections need before they can be used; by default nothing.
#[derive(Clone, Default)]
pub struct ClientSecurity {
    tls: Option<Arc<ClientConfig>>,
    login: Option<Arc<Login>>,
}

struct Login {
    mechanism: SaslMechanism,
    user: String,
    password: String,
}

impl fmt::Debug for ClientSecurity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let login = self.login.as_ref().map(|login| (login.mechanism, &login.user));
        f.debug_struct("ClientSecurity").field("tls", &self.tls.is_some()).field("login", &login).finish()
    }
}

/// Kafka's properties by name.
struct Properties(std::collections::BTreeMap<String, String>);

impl Properties {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// PEM that stands in the property `inline`, or in the file that `location` names.
    fn pem(&self, inline: &str, location: &str) -> anyhow::Result<Option<Vec<u8>>> {
        match (self.get(inline), self.get(location)) {
            (Some(text), _) => Ok(Some(text.as_bytes().to_vec())),
            (None, Some(path)) => {
                std::fs::read(path).map(Some).with_context(|| format!("{location}: cannot read {path}"))
            }
            (None, None) => Ok(None),
        }
    }
}

impl ClientSecurity {
    /// Reads a file of Kafka's client properties. What has nothing to do with security is passed over.
    ///
    /// # Errors
    /// A property that is wrong or not supported.
    pub fn read(file: &Path) -> anyhow::Result<ClientSecurity> {
        ClientSecurity::parse(&std::fs::read_to_string(file).context("cannot read it")?)
    }

    /// As [`ClientSecurity::read`], from the text itself.
    ///
    /// # Errors
    /// A property that is wrong or not supported.
    pub fn parse(text: &str) -> anyhow::Result<ClientSecurity> {
        ClientSecurity::of(&Properties(parse(text)?))
    }

    fn of(properties: &Properties) -> anyhow::Result<ClientSecurity> {
        let name = properties.get("security.protocol").unwrap_or("PLAINTEXT");
        let protocol = SecurityProtocol::from_name(name).with_context(|| {
            let known = SecurityProtocol::ALL.map(SecurityProtocol::name).join(", ");
            format!("security.protocol: {name} is none of {known}")
        })?;
        Ok(ClientSecurity {
            tls: if protocol.is_tls() { Some(Arc::new(tls(properties)?)) } else { None },
            login: if protocol.is_sasl() { Some(Arc::new(login(properties)?)) } else { None },
        })
    }

    /// Puts TLS on a new connection, if that is asked for.
    pub(super) async fn secure(&self, address: &str, stream: TcpStream) -> anyhow::Result<Stream> {
        let Some(tls) = &self.tls else { return Ok(Stream::Tcp(stream)) };
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
        let name = ServerName::try_from(host.to_owned()).with_context(|| format!("{host} is no server name"))?;
        let handshake = timeout(TLS_TIMEOUT, TlsConnector::from(Arc::clone(tls)).connect(name, stream));
        let stream = handshake.await.map_err(|_| anyhow!("the TLS handshake takes too long"))?;
        Ok(Stream::Tls(Box::new(stream.context("the TLS handshake failed")?)))
    }

    /// Logs in, if that is asked for.
    pub(super) async fn log_in(&self, connection: &mut Connection) -> anyhow::Result<()> {
        let Some(login) = &self.login else { return Ok(()) };
        let name = login.mechanism.name();
        let request = SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str(name));
        let answer = connection.call(1, Duration::ZERO, |_| request).await?;
        let offered = answer.mechanisms.iter().map(|mechanism| mechanism.as_str()).collect::<Vec<_>>().join(", ");
        check(answer.error_code, None, format!("cannot log in with {name} (offered: {offered})"))?;
        match login.mechanism {
            SaslMechanism::Plain => {
                let token = format!("\0{}\0{}", login.user, login.password);
                step(connection, login, token).await.map(drop)
            }
            SaslMechanism::Scram(mechanism) => login.scram(connection, mechanism).await,
        }
    }
}

impl Login {
    async fn scram(&self, connection: &mut Connection, mechanism: ScramMechanism) -> anyhow::Result<()> {
        let nonce = Uuid::new_v4().simple().to_string();
        let (client, first) = ScramClient::begin(mechanism, &self.user, &nonce);
        let answer = step(connection, self, first).await?;
        let (proven, last) = client.prove(&self.password, &answer).context("the server's first SCRAM message")?;
        let answer = step(connection, self, last).await?;
        proven.check(&answer).context("the server does not know the password's keys; is it the right one?")
    }
}

async fn step(connection: &mut Connection, login: &Login, token: String) -> anyhow::Result<bytes::Bytes> {
    let request = SaslAuthenticateRequest::default().with_auth_bytes(token.into());
    let answer = connection.call(2, Duration::ZERO, |_| request).await?;
    let what = format!("cannot log in as {}", login.user);
    check(answer.error_code, answer.error_message.as_ref(), what).map_err(|refused: Refused| anyhow!(refused))?;
    Ok(answer.auth_bytes)
}

fn login(properties: &Properties) -> anyhow::Result<Login> {
    let name = properties.get("sasl.mechanism").context("sasl.mechanism is missing")?;
    let mechanism = SaslMechanism::from_name(name).with_context(|| {
        let known = SaslMechanism::ALL.map(SaslMechanism::name).join(", ");
        format!("sasl.mechanism: {name} is none of {known}")
    })?;
    let text = properties.get("sasl.jaas.config").context("sasl.jaas.config is missing")?;
    let (module, mut options) = jaas(text).context("sasl.jaas.config")?;
    let wanted = if mechanism == SaslMechanism::Plain { "PlainLoginModule" } else { "ScramLoginModule" };
    if module.rsplit('.').next() != Some(wanted) {
        bail!("sasl.jaas.config: {name} needs the {wanted}, not {module}");
    }
    if options.get("tokenauth").is_some_and(|value| value == "true") {
        bail!("sasl.jaas.config: delegation tokens are not supported");
    }
    let mut option = |name: &str| options.remove(name).with_context(|| format!("sasl.jaas.config: {name} is missing"));
    Ok(Login { mechanism, user: option("username")?, password: option("password")? })
}

fn tls(properties: &Properties) -> anyhow::Result<ClientConfig> {
    for kind in ["ssl.truststore.type", "ssl.keystore.type"] {
        let store = kind.replace("type", "location");
        let given = properties.get(kind).unwrap_or("JKS");
        if properties.get(&store).is_some() && given != "PEM" {
            bail!("{kind}: {given} is not supported; convert {store} to PEM and set {kind}=PEM");
        }
    }
    if properties.0.get("ssl.endpoint.identification.algorithm").is_some_and(String::is_empty) {
        bail!("ssl.endpoint.identification.algorithm: the server's name is always checked");
    }
    if properties.get("ssl.key.password").is_some() {
        bail!("ssl.key.password: encrypted keys are not supported; decrypt it with openssl pkey");
    }
    let mut roots = RootCertStore::empty();
    match properties.pem("ssl.truststore.certificates", "ssl.truststore.location")? {
        Some(pem) => {
            for certificate in certificates(&pem).context("ssl.truststore")? {
                roots.add(certificate).context("ssl.truststore")?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    anyhow::ensure!(
        !roots.is_empty(),
        "there are no authorities to trust; set ssl.truststore.location and its type PEM"
    );
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let builder = builder.with_root_certificates(roots);
    let chain = properties.pem("ssl.keystore.certificate.chain", "ssl.keystore.location")?;
    let Some(chain) = chain else { return Ok(builder.with_no_client_auth()) };
    let key = properties.pem("ssl.keystore.key", "ssl.keystore.location")?.unwrap_or_default();
    let key = PrivateKeyDer::from_pem_slice(&key).context("ssl.keystore: there is no unencrypted PEM private key")?;
    let chain = certificates(&chain).context("ssl.keystore")?;
    builder.with_client_auth_cert(chain, key).context("ssl.keystore")
}

fn certificates(pem: &[u8]) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>()?;
    anyhow::ensure!(!found.is_empty(), "there is no PEM certificate");
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn security(text: &str) -> Result<ClientSecurity, String> {
        ClientSecurity::parse(text).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn a_properties_file_says_how_to_log_in() {
        let text = "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=SCRAM-SHA-512\nacks=all\n\
            sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required \\\n\
            username=\"alice\" password=\"alice-secret\";\n";
        let found = security(text).unwrap();
        let login = found.login.as_ref().unwrap();
        assert_eq!((login.user.as_str(), login.password.as_str()), ("alice", "alice-secret"));
        assert_eq!(login.mechanism, SaslMechanism::Scram(ScramMechanism::Sha512));
        assert!(found.tls.is_none() && !format!("{found:?}").contains("alice-secret"));
        let none = security("bootstrap.servers=x:1\n").unwrap();
        assert!(none.login.is_none() && none.tls.is_none());
    }

    #[test]
    fn what_cannot_be_done_is_named_with_its_property() {
        let sasl = "security.protocol=SASL_PLAINTEXT\n";
        for (text, what) in [
            ("security.protocol=TLS".to_owned(), "security.protocol: TLS is none of PLAINTEXT, SSL"),
            (sasl.to_owned(), "sasl.mechanism is missing"),
            (format!("{sasl}sasl.mechanism=GSSAPI"), "sasl.mechanism: GSSAPI is none of PLAIN"),
            (format!("{sasl}sasl.mechanism=PLAIN"), "sasl.jaas.config is missing"),
            (
                format!(
                    "{sasl}sasl.mechanism=PLAIN\nsasl.jaas.config=a.ScramLoginModule required username=a password=b;"
                ),
                "needs the PlainLoginModule",
            ),
            (
                format!("{sasl}sasl.mechanism=PLAIN\nsasl.jaas.config=PlainLoginModule required username=a;"),
                "password is missing",
            ),
            ("security.protocol=SSL\nssl.truststore.location=/t.jks".to_owned(), "ssl.truststore.type: JKS"),
            ("security.protocol=SSL\nssl.key.password=x".to_owned(), "ssl.key.password"),
        ] {
            let error = security(&text).err().unwrap_or_default();
            assert!(error.contains(what), "{text}: {error}");
        }
    }
}
