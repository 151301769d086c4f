//! SCRAM against the RFCs' example and against itself; certificates' names.

use std::num::NonZeroU32;

use proptest::prelude::*;

use super::principal::of_certificate;
use super::scram::{ScramCredential, ScramError, ScramMechanism};
use super::scram_client::ScramClient;
use super::scram_server::{ClientFirst, ScramServer};
use crate::base64;

const CLIENT_NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
const SERVER_FIRST: &str = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";

fn credential(mechanism: ScramMechanism, password: &str) -> ScramCredential {
    let salt = base64::decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
    ScramCredential::of_password(mechanism, password, salt.into(), NonZeroU32::new(4096).unwrap())
}

/// The example of RFC 7677, section 3; for SHA-512 the same one, computed by another implementation (Python's hashlib).
#[test]
fn both_sides_write_the_rfcs_example() {
    for (mechanism, proof, signature) in [
        (
            ScramMechanism::Sha256,
            "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
            "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
        ),
        (
            ScramMechanism::Sha512,
            "gMGXRcevScNtxZ6/8lQYpGtnsNAc3mGcmNomv+xnoOMw+3R2xNJdMNnzMlTN8PPC6wdp6dybEmDYXYTxwnYPJQ==",
            "ZQnYEgWQMFmmsM8aQMF0nDDCy/AgCzkwk8CmMZYcMg0vSVlKDanekLtifDSeVGT4+5ZxXnJq199RVG2rR7N7Zw==",
        ),
    ] {
        let (client, first) = ScramClient::begin(mechanism, "user", CLIENT_NONCE);
        assert_eq!(first, "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let first = ClientFirst::parse(first.as_bytes()).unwrap();
        let (server, answer) = ScramServer::begin(first, credential(mechanism, "pencil"), SERVER_NONCE);
        assert_eq!(answer, SERVER_FIRST);
        let (proven, last) = client.prove("pencil", &answer).unwrap();
        assert_eq!(last, format!("c=biws,r={CLIENT_NONCE}{SERVER_NONCE},p={proof}"));
        let answer = server.finish(last.as_bytes()).unwrap();
        assert_eq!(answer, format!("v={signature}"));
        assert_eq!(proven.check(&answer), Ok(()));
        assert_eq!(proven.check(b"v=AAAA"), Err(ScramError::Proof));
        assert_eq!(proven.check(b"e=other-error"), Err(ScramError::Malformed));
    }
}

#[test]
fn a_first_message_is_refused_for_what_is_not_served() {
    for (message, error) in [
        ("p=tls-unique,,n=user,r=x", ScramError::ChannelBinding),
        ("n,a=other,n=user,r=x", ScramError::AuthorizationId),
        ("n,,n=user,r=x,tokenauth=true", ScramError::Token),
        ("n,,m=must,n=user,r=x", ScramError::Malformed),
        ("n,,n=,r=x", ScramError::Malformed),
        ("n,,n=us=er,r=x", ScramError::Malformed),
        ("n,,n=user,r=", ScramError::Malformed),
        ("n,,r=x,n=user", ScramError::Malformed),
        ("n,n=user,r=x", ScramError::Malformed),
        ("", ScramError::Malformed),
    ] {
        assert_eq!(ClientFirst::parse(message.as_bytes()), Err(error), "{message}");
    }
    assert_eq!(ClientFirst::parse(b"y,a=a=2Cb=3Dc,n=a=2Cb=3Dc,r=x,ext=1").unwrap().user, "a,b=c");
}

#[test]
fn a_last_message_of_another_exchange_proves_nothing() {
    let mechanism = ScramMechanism::Sha256;
    let begin = |nonce: &str| {
        let first = ClientFirst::parse(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO").unwrap();
        ScramServer::begin(first, credential(mechanism, "pencil"), nonce).0
    };
    let (client, _) = ScramClient::begin(mechanism, "user", CLIENT_NONCE);
    let (_, last) = client.prove("pencil", SERVER_FIRST.as_bytes()).unwrap();
    assert!(begin(SERVER_NONCE).finish(last.as_bytes()).is_ok());
    assert_eq!(begin("another").finish(last.as_bytes()), Err(ScramError::Nonce));
    // As older librdkafka writes it; its proof is over what it wrote, so this one does not fit.
    let twice = last.replace(",r=rOpr", ",r=rOprNGfwEbeRWgbNEkqOrOpr");
    assert_eq!(begin(SERVER_NONCE).finish(twice.as_bytes()), Err(ScramError::Proof));
    let bound = last.replace("c=biws", "c=eSws");
    assert_eq!(begin(SERVER_NONCE).finish(bound.as_bytes()), Err(ScramError::ChannelBinding));
    for proof in ["", "AAAA", "not base64"] {
        let cut = format!("{},p={proof}", last.rsplit_once(",p=").unwrap().0);
        assert_eq!(begin(SERVER_NONCE).finish(cut.as_bytes()), Err(ScramError::Malformed));
    }
}

#[test]
fn a_server_that_asks_for_too_much_or_answers_another_is_left() {
    let prove = |message: &str| {
        let (client, _) = ScramClient::begin(ScramMechanism::Sha256, "user", "abc");
        client.prove("pencil", message.as_bytes()).err()
    };
    assert_eq!(prove("r=abcd,s=AAAA,i=1000001"), Some(ScramError::Iterations(1_000_001)));
    assert_eq!(prove("r=abc,s=AAAA,i=4096"), Some(ScramError::Nonce));
    assert_eq!(prove("r=xabc,s=AAAA,i=4096"), Some(ScramError::Nonce));
    assert_eq!(prove("r=abcd,s=AAAA,i=0"), Some(ScramError::Malformed));
    assert_eq!(prove("e=other-error"), Some(ScramError::Malformed));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn who_knows_the_password_gets_in_and_nobody_else(
        user in "\\PC{1,12}", password in "\\PC{1,12}", other in "\\PC{1,12}", sha512: bool, flip in any::<prop::sample::Index>(),
    ) {
        let mechanism = if sha512 { ScramMechanism::Sha512 } else { ScramMechanism::Sha256 };
        let attempt = |given: &str| {
            let (client, first) = ScramClient::begin(mechanism, &user, "abc");
            let first = ClientFirst::parse(first.as_bytes()).unwrap();
            assert_eq!(&first.user, &user);
            let (server, answer) = ScramServer::begin(first, credential(mechanism, &password), "def");
            let (proven, last) = client.prove(given, &answer).unwrap();
            (server, proven, last)
        };
        let (server, proven, last) = attempt(&password);
        let answer = server.finish(last.as_bytes());
        prop_assert!(answer.is_ok_and(|answer| proven.check(&answer).is_ok()));
        let (server, _, mut last) = attempt(&password);
        // One character of the proof is another one.
        let proof = last.rfind(",p=").unwrap() + 3;
        let at = proof + flip.index(mechanism.size() - 2);
        let flipped = if &last[at..=at] == "A" { "B" } else { "A" };
        last.replace_range(at..=at, flipped);
        prop_assert_eq!(server.finish(last.as_bytes()), Err(ScramError::Proof));
        if other != password {
            let (server, _, last) = attempt(&other);
            prop_assert_eq!(server.finish(last.as_bytes()), Err(ScramError::Proof));
        }
    }
}

proptest! {
    #[test]
    fn no_message_panics(first: Vec<u8>, last in "[cnrp=,A-Za-z0-9+/]{0,80}", der: Vec<u8>) {
        let _ = ClientFirst::parse(&first);
        let _ = ClientFirst::parse(format!("n,,{last}").as_bytes());
        let first = ClientFirst::parse(b"n,,n=user,r=abc").unwrap();
        let server = ScramServer::begin(first, credential(ScramMechanism::Sha256, "pencil"), "def").0;
        prop_assert!(server.finish(last.as_bytes()).is_err());
        let _ = ScramClient::begin(ScramMechanism::Sha256, "user", "abc").0.prove("pencil", last.as_bytes());
        let _ = of_certificate(&der);
    }

    #[test]
    fn no_certificate_with_a_changed_byte_panics(at in any::<prop::sample::Index>(), byte: u8) {
        let mut der = certificate(&[(rcgen::DnType::CommonName, "meter".into())]);
        let at = at.index(der.len());
        der[at] = byte;
        let _ = of_certificate(&der);
    }
}

fn certificate(name: &[(rcgen::DnType, rcgen::DnValue)]) -> Vec<u8> {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    for (kind, value) in name {
        params.distinguished_name.push(kind.clone(), value.clone());
    }
    params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().to_vec()
}

#[test]
fn a_certificates_subject_is_written_as_java_writes_it() {
    use rcgen::{DnType, DnValue};
    let email = DnType::CustomDnType(vec![1, 2, 840, 113_549, 1, 9, 1]);
    for (name, written) in [
        (
            vec![(DnType::CountryName, "GB"), (DnType::OrganizationName, "Utility"), (DnType::CommonName, "meter-1")],
            "User:CN=meter-1,O=Utility,C=GB",
        ),
        (
            vec![(DnType::StateOrProvinceName, "a,b+c"), (DnType::CommonName, "x=\"y\" <z>")],
            "User:CN=x\\=\\\"y\\\" \\<z\\>,ST=a\\,b\\+c",
        ),
        (vec![(DnType::OrganizationalUnitName, " in "), (DnType::LocalityName, "Łódź")], "User:L=Łódź,OU=\\ in\\ "),
        (vec![(email, "a@b")], "User:1.2.840.113549.1.9.1=#0c03614062"),
        (vec![], "User:"),
    ] {
        let name: Vec<_> = name.into_iter().map(|(kind, text)| (kind, DnValue::Utf8String(text.to_owned()))).collect();
        assert_eq!(of_certificate(&certificate(&name)).as_deref(), Some(written));
    }
    assert_eq!(of_certificate(b"none"), None);
}
