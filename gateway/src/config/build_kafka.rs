//! `[kafka]` and `[users]` from checked settings, and the rules between their keys and others.

use forebay_log::group::Limits;

use super::error::{Origin, Problem};
use super::kafka::{ClientAuth, KafkaConfig, SaslMechanism, SecurityProtocol};
use super::settings::Settings;
use super::types::Config;
use super::value::Value;
use crate::security::limits::MAX_FILE_USERS;

const SECTION: &str = "kafka";

impl Settings {
    pub(super) fn kafka(&self) -> KafkaConfig {
        let text = |name| self.text(SECTION, name).unwrap_or_default();
        let mechanisms = match self.get(SECTION, "sasl.enabled.mechanisms") {
            Some(Value::List(names)) => names.iter().filter_map(|name| SaslMechanism::from_name(name)).collect(),
            _ => Vec::new(),
        };
        let users = text("super.users");
        let users = users.split(';').map(str::trim).filter(|user| !user.is_empty());
        let number = |name| self.integer(SECTION, name);
        let groups = Limits {
            min_session_timeout: number("group.min.session.timeout.ms"),
            max_session_timeout: number("group.max.session.timeout.ms"),
            max_size: usize::try_from(number("group.max.size")).unwrap_or(usize::MAX),
            initial_rebalance_delay: number("group.initial.rebalance.delay.ms"),
            consumer_session_timeout: number("group.consumer.session.timeout.ms"),
            consumer_heartbeat_interval: number("group.consumer.heartbeat.interval.ms"),
        };
        KafkaConfig {
            auto_create_topics_enable: self.bool(SECTION, "auto.create.topics.enable"),
            groups,
            security_protocol: SecurityProtocol::from_name(&text("security.protocol")).unwrap_or_default(),
            sasl_enabled_mechanisms: mechanisms,
            ssl_client_auth: ClientAuth::from_name(&text("ssl.client.auth")),
            authorizer_enable: self.bool(SECTION, "authorizer.enable"),
            super_users: users.map(str::to_owned).collect(),
            allow_everyone_if_no_acl_found: self.bool(SECTION, "allow.everyone.if.no.acl.found"),
        }
    }

    pub(super) fn check_kafka(&self, config: &Config, problems: &mut Vec<Problem>) {
        let KafkaConfig { security_protocol: protocol, sasl_enabled_mechanisms, ssl_client_auth, super_users, .. } =
            &config.kafka;
        let mut refuse = |name: &str, what: &str, help: &str| {
            problems.push(Problem {
                origin: self.origin(SECTION, name),
                what: format!("{SECTION}.{name}: {what}"),
                help: Some(help.to_owned()),
            });
        };
        let groups = &config.kafka.groups;
        if groups.min_session_timeout > groups.max_session_timeout {
            refuse(
                "group.min.session.timeout.ms",
                "more than group.max.session.timeout.ms: no session would do",
                "set it to less",
            );
        }
        if groups.consumer_heartbeat_interval >= groups.consumer_session_timeout {
            refuse(
                "group.consumer.heartbeat.interval.ms",
                "not less than group.consumer.session.timeout.ms: every member would be given up",
                "set it to a third of that",
            );
        }
        if protocol.is_tls() && config.tls.certfile.is_none() {
            refuse("security.protocol", "TLS needs a certificate", "set tls.certfile and tls.keyfile");
        }
        if protocol.is_sasl() && sasl_enabled_mechanisms.is_empty() {
            refuse("sasl.enabled.mechanisms", "nobody could log in", "name at least one, such as \"SCRAM-SHA-256\"");
        }
        if *ssl_client_auth != ClientAuth::None {
            if !protocol.is_tls() {
                refuse("ssl.client.auth", "without TLS there are no certificates", "set security.protocol = \"SSL\"");
            } else if config.tls.cafile.is_none() {
                refuse("ssl.client.auth", "there are no authorities to check against", "set tls.cafile");
            }
        }
        for user in super_users {
            if user.strip_prefix("User:").is_none_or(str::is_empty) {
                refuse("super.users", &format!("{user} is no principal"), "write \"User:admin;User:CN=ops,O=Utility\"");
            }
        }
        if config.users.len() > MAX_FILE_USERS {
            problems.push(Problem {
                origin: Origin::Default,
                what: format!("users: there may be {MAX_FILE_USERS} at most"),
                help: Some("make the others with kafka-configs --entity-type users".to_owned()),
            });
        }
    }
}
