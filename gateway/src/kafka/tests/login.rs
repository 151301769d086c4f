//! Who is let in at the Kafka port, and who is not.

use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_user_scram_credentials_request::{
    ScramCredentialDeletion, ScramCredentialUpsertion,
};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::limits::{FAILED_LOGIN_DELAY, MAX_LOGIN_BYTES};
use super::door::frame;
use super::secured::{SASL, Secured, call, properties};

const MECHANISMS: [&str; 3] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];

#[tokio::test(flavor = "multi_thread")]
async fn a_user_of_the_config_logs_in_with_every_mechanism_and_nobody_with_another_password() {
    let door = Secured::open(SASL).await;
    for mechanism in MECHANISMS {
        let mut client = door.log_in(mechanism, "alice", "alice-secret").await.unwrap();
        assert_eq!(client.topic("readings", true).await.unwrap().name, "readings");
    }
    assert_eq!(door.failures(), 0);
    for (n, mechanism) in MECHANISMS.into_iter().enumerate() {
        let told = async |user, password| {
            let began = Instant::now();
            let error = format!("{:#}", door.log_in(mechanism, user, password).await.err().unwrap());
            assert!(began.elapsed() >= FAILED_LOGIN_DELAY, "guessing takes time");
            error.replace(user, "USER")
        };
        let wrong = told("alice", "wrong").await;
        assert!(wrong.contains("invalid credentials"), "{wrong}");
        assert_eq!(wrong, told("nobody", "alice-secret").await, "whether a user exists is not told");
        let counted = async {
            while door.failures() < 2 * (n as u64 + 1) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), counted).await.expect("failures are counted");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_but_a_login_is_served_before_it() {
    let door = Secured::open(SASL).await;
    let mut stream = door.raw().await;
    assert!(call(&mut stream, &ApiVersionsRequest::default(), 0).await.is_some());
    assert!(call(&mut stream, &MetadataRequest::default(), 1).await.is_none());
    // A token without a mechanism.
    let token = SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from_static(b"\0alice\0alice-secret"));
    assert!(call(&mut door.raw().await, &token, 1).await.is_none());
    // Larger than any login.
    let mut stream = door.raw().await;
    let large = SaslHandshakeRequest::default().with_mechanism(StrBytes::from_string("x".repeat(MAX_LOGIN_BYTES)));
    assert!(call(&mut stream, &large, 1).await.is_none());
    let client = format!("{:#}", door.try_client("").await.unwrap().topics().await.unwrap_err());
    assert!(client.contains("lost the connection"), "{client}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mechanism_that_is_not_enabled_is_refused_with_those_that_are() {
    let door = Secured::open(&[SASL, &["kafka.sasl.enabled.mechanisms=SCRAM-SHA-512"]].concat()).await;
    let mut stream = door.raw().await;
    let request = SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str("PLAIN"));
    let response = call(&mut stream, &request, 1).await.unwrap();
    assert_eq!(response.error_code, ResponseError::UnsupportedSaslMechanism.code());
    assert_eq!(response.mechanisms, [StrBytes::from_static_str("SCRAM-SHA-512")]);
    assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0, "and the connection closes");
    door.log_in("SCRAM-SHA-512", "alice", "alice-secret").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_client_sends_its_token_without_a_request_around_it() {
    let door = Secured::open(SASL).await;
    let named = SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str("PLAIN"));
    for (token, served) in [(&b"\0alice\0alice-secret"[..], true), (b"\0alice\0wrong", false)] {
        let mut stream = door.raw().await;
        assert_eq!(call(&mut stream, &named, 0).await.unwrap().error_code, 0);
        stream.write_i32(token.len() as i32).await.unwrap();
        stream.write_all(token).await.unwrap();
        if served {
            assert_eq!(stream.read_i32().await.unwrap(), 0, "an empty token answers PLAIN");
        }
        assert_eq!(call(&mut stream, &MetadataRequest::default(), 1).await.is_some(), served);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_follows_the_login_at_once_is_served() {
    let door = Secured::open(SASL).await;
    let mut stream = door.raw().await;
    let named = SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str("PLAIN"));
    let token = SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from_static(b"\0alice\0alice-secret"));
    let sent = [frame(&named, 1, 1), frame(&token, 1, 2), frame(&MetadataRequest::default(), 1, 3)].concat();
    stream.write_all(&sent).await.unwrap();
    for correlation in 1..=3 {
        let length = stream.read_i32().await.unwrap();
        assert_eq!(stream.read_i32().await.unwrap(), correlation);
        let mut rest = vec![0; length as usize - 4];
        stream.read_exact(&mut rest).await.unwrap();
    }
    // Nobody logs in twice (KIP-368 is not offered).
    let again = call(&mut stream, &token, 1).await.unwrap();
    assert_eq!(again.error_code, ResponseError::IllegalSaslState.code());
}

fn upsert(user: &str, salted: Bytes) -> AlterUserScramCredentialsRequest {
    let new = ScramCredentialUpsertion::default()
        .with_name(StrBytes::from_string(user.to_owned()))
        .with_mechanism(1)
        .with_iterations(8192)
        .with_salt(Bytes::from_static(b"salt of bob"))
        .with_salted_password(salted);
    AlterUserScramCredentialsRequest::default().with_upsertions(vec![new])
}

fn salted(password: &str) -> Bytes {
    let mut salted = vec![0; 32];
    let iterations = std::num::NonZeroU32::new(8192).unwrap();
    let algorithm = ring::pbkdf2::PBKDF2_HMAC_SHA256;
    ring::pbkdf2::derive(algorithm, iterations, b"salt of bob", password.as_bytes(), &mut salted);
    salted.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn users_are_made_changed_and_removed_over_the_wire_and_survive_restarts() {
    let mut door = Secured::open(SASL).await;
    let alter = async |door: &Secured, request: AlterUserScramCredentialsRequest| {
        let mut admin = door.raw_of("admin", "admin-secret").await;
        call(&mut admin, &request, 0).await.unwrap().results[0].error_code
    };
    let may = async |door: &Secured, password| door.log_in("SCRAM-SHA-256", "bob", password).await.is_ok();
    assert!(!may(&door, "one").await);
    assert_eq!(alter(&door, upsert("bob", salted("one"))).await, 0);
    assert!(may(&door, "one").await);
    assert!(door.log_in("SCRAM-SHA-512", "bob", "one").await.is_err(), "only the mechanism that was asked for");
    assert!(door.log_in("PLAIN", "bob", "one").await.is_err(), "no password is kept that PLAIN could be checked by");
    door.restart().await;
    assert!(may(&door, "one").await && !may(&door, "two").await);
    assert_eq!(alter(&door, upsert("bob", salted("two"))).await, 0);
    door.restart().await;
    assert!(may(&door, "two").await && !may(&door, "one").await);

    let mut admin = door.raw_of("admin", "admin-secret").await;
    let described =
        call(&mut admin, &DescribeUserScramCredentialsRequest::default().with_users(None), 0).await.unwrap();
    let described: Vec<_> = described.results.iter().map(|user| (&*user.user, user.credential_infos.len())).collect();
    assert_eq!(described, [("admin", 2), ("alice", 2), ("bob", 1)]);
    let gone = ScramCredentialDeletion::default().with_name(StrBytes::from_static_str("bob")).with_mechanism(1);
    let gone = AlterUserScramCredentialsRequest::default().with_deletions(vec![gone]);
    assert_eq!(alter(&door, gone.clone()).await, 0);
    assert!(!may(&door, "two").await);
    assert_eq!(alter(&door, gone).await, ResponseError::ResourceNotFound.code());
    door.restart().await;
    assert!(!may(&door, "two").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_are_no_good_are_refused() {
    let door = Secured::open(SASL).await;
    let mut admin = door.raw_of("admin", "admin-secret").await;
    let good = upsert("bob", salted("one"));
    let with = |change: fn(&mut ScramCredentialUpsertion)| {
        let mut request = good.clone();
        change(&mut request.upsertions[0]);
        request
    };
    let twice =
        AlterUserScramCredentialsRequest::default().with_upsertions([&good.upsertions[..], &good.upsertions].concat());
    for (request, error) in [
        (with(|new| new.iterations = 4095), ResponseError::UnacceptableCredential),
        (with(|new| new.iterations = 16_385), ResponseError::UnacceptableCredential),
        (with(|new| new.iterations = -1), ResponseError::UnacceptableCredential),
        (with(|new| new.mechanism = 3), ResponseError::UnsupportedSaslMechanism),
        (with(|new| new.name = StrBytes::default()), ResponseError::UnacceptableCredential),
        (with(|new| new.name = StrBytes::from_static_str("alice")), ResponseError::UnacceptableCredential),
        (with(|new| new.salt = Bytes::new()), ResponseError::UnacceptableCredential),
        (with(|new| new.salted_password = Bytes::from_static(b"short")), ResponseError::UnacceptableCredential),
        (twice, ResponseError::DuplicateResource),
    ] {
        let response = call(&mut admin, &request, 0).await.unwrap();
        assert_eq!(response.results.len(), 1);
        assert_eq!(response.results[0].error_code, error.code(), "{request:?}");
    }
    assert!(door.log_in("SCRAM-SHA-256", "bob", "one").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_does_not_exist_has_the_same_salt_each_time_and_after_a_restart() {
    let mut door = Secured::open(SASL).await;
    let first = async |door: &Secured, user: &str| {
        let mut stream = door.raw().await;
        let named = SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str("SCRAM-SHA-256"));
        call(&mut stream, &named, 1).await.unwrap();
        let token = SaslAuthenticateRequest::default().with_auth_bytes(format!("n,,n={user},r=abc").into());
        let answer = call(&mut stream, &token, 1).await.unwrap();
        assert_eq!(answer.error_code, 0);
        let text = String::from_utf8(answer.auth_bytes.to_vec()).unwrap();
        text.split_once(',').unwrap().1.to_owned()
    };
    let before = (first(&door, "nobody").await, first(&door, "alice").await);
    assert_eq!(first(&door, "nobody").await, before.0);
    assert_ne!(first(&door, "nobody2").await, before.0);
    assert_eq!(before.0.len(), before.1.len());
    assert!(before.0.ends_with(",i=4096") && before.1.ends_with(",i=4096"));
    door.restart().await;
    assert_eq!((first(&door, "nobody").await, first(&door, "alice").await), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_file_is_read_again_on_reload() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("carol");
    std::fs::write(&file, "first\n").unwrap();
    let user = format!("users.carol=file:{}", file.display());
    let door = Secured::open(&[SASL, &[user.as_str()]].concat()).await;
    let may = async |password| door.log_in("SCRAM-SHA-512", "carol", password).await.is_ok();
    assert!(may("first").await);
    std::fs::write(&file, "second\n").unwrap();
    assert!(may("first").await, "not before the reload");
    door.security().reload().await.unwrap();
    assert!(may("second").await && !may("first").await);
    std::fs::remove_file(&file).unwrap();
    assert!(door.security().reload().await.is_err());
    assert!(may("second").await, "what cannot be read changes nothing");
}

/// An authority and what it has signed, as PEM files.
struct Certificates {
    folder: tempfile::TempDir,
}

impl Certificates {
    fn make() -> Certificates {
        let folder = tempfile::tempdir().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = rcgen::CertifiedIssuer::self_signed(params, key).unwrap();
        let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
        write("ca.pem", authority.pem());
        let sign = |params: rcgen::CertificateParams| {
            let key = rcgen::KeyPair::generate().unwrap();
            (params.signed_by(&key, &authority).unwrap().pem(), key.serialize_pem())
        };
        let (chain, key) = sign(rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap());
        write("server.pem", chain);
        write("server.key", key);
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CountryName, "GB");
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "Utility, Ltd");
        params.distinguished_name.push(rcgen::DnType::CommonName, "meter-1");
        let (chain, key) = sign(params);
        write("client.pem", key + &chain);
        Certificates { folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn flags(&self) -> Vec<String> {
        let named = [("certfile", "server.pem"), ("keyfile", "server.key"), ("cafile", "ca.pem")];
        named.map(|(key, file)| format!("tls.{key}={}", self.path(file))).to_vec()
    }

    fn trust(&self) -> String {
        format!("ssl.truststore.type=PEM\nssl.truststore.location={}\n", self.path("ca.pem"))
    }

    fn identity(&self) -> String {
        format!("ssl.keystore.type=PEM\nssl.keystore.location={}\n", self.path("client.pem"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_travel_over_tls_and_who_speaks_no_tls_holds_up_nobody() {
    let certificates = Certificates::make();
    let flags = certificates.flags();
    let mut flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    flags.extend(SASL);
    flags.push("kafka.security.protocol=SASL_SSL");
    let door = Secured::open(&flags).await;
    let silent = door.raw().await;
    let mut other = door.raw().await;
    other.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let properties = properties("SASL_SSL", "PLAIN", "alice", "alice-secret");
    let mut client = door.try_client(&format!("{properties}{}", certificates.trust())).await.unwrap();
    client.topic("readings", true).await.unwrap();
    let stranger = Certificates::make();
    let error = door.try_client(&format!("{properties}{}", stranger.trust())).await.err().unwrap();
    assert!(format!("{error:#}").contains("TLS handshake failed"), "{error:#}");
    assert!(door.log_in("PLAIN", "alice", "alice-secret").await.is_err(), "not without TLS");
    drop(silent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_is_a_principal() {
    let certificates = Certificates::make();
    let flags = certificates.flags();
    let mut flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    flags.extend(["kafka.security.protocol=SSL", "kafka.ssl.client.auth=required", "kafka.authorizer.enable=true"]);
    let meter = "kafka.super.users=User:CN=meter-1,O=Utility\\, Ltd,C=GB";
    let ssl = format!("security.protocol=SSL\n{}", certificates.trust());
    let named = format!("{ssl}{}", certificates.identity());
    let may = async |door: &Secured, properties: &str| match door.try_client(properties).await {
        Ok(mut client) => client.topic("readings", true).await.is_ok(),
        Err(_) => false,
    };
    let door = Secured::open(&[&flags[..], &[meter]].concat()).await;
    assert!(may(&door, &named).await);
    assert!(!may(&door, &ssl).await, "without a certificate nobody gets in");
    let door = Secured::open(&[&flags[..], &["kafka.super.users=User:CN=meter-1"]].concat()).await;
    assert!(!may(&door, &named).await, "another principal");
    let requested = ["kafka.ssl.client.auth=requested", "kafka.super.users=User:ANONYMOUS"];
    let door = Secured::open(&[&flags[..], &requested].concat()).await;
    assert!(may(&door, &ssl).await, "who shows none is anonymous");
    assert!(!may(&door, &named).await, "and who shows one is not");
}
