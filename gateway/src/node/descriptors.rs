//! File descriptors: as many as the system allows, shared out so that connections never take those that the log needs.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;
use crate::http::MAX_CONNECTIONS as MAX_HTTP;
use crate::kafka::MAX_CONNECTIONS as MAX_KAFKA;

/// How many connections each door may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shares {
    pub(super) mqtt: usize,
    pub(super) kafka: usize,
    pub(super) http: usize,
}

/// Raises the soft limit (often 1024) to the hard one and returns what is allowed then.
pub(super) fn raise() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let allowed = if raised.is_ok() { maximum } else { current };
    allowed.map_or(usize::MAX, |allowed| usize::try_from(allowed).unwrap_or(usize::MAX))
}

/// Half of the descriptors for meters, an eighth each for Kafka and HTTP clients; the last quarter is the log's.
pub(super) fn share(allowed: usize, config: &Config) -> Shares {
    let wanted = config.mqtt.max_connections;
    let mqtt = wanted.min(allowed / 2);
    if mqtt < wanted {
        tracing::warn!(
            allowed,
            max_connections = mqtt,
            "the system allows too few open files for mqtt.max_connections = {wanted}: raise the hard limit (ulimit -Hn, LimitNOFILE)"
        );
    }
    Shares { mqtt, kafka: MAX_KAFKA.min(allowed / 8), http: MAX_HTTP.min(allowed / 8) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    #[test]
    fn the_soft_limit_is_raised_and_connections_leave_a_quarter_to_the_log() {
        let allowed = raise();
        assert_eq!(getrlimit(Resource::Nofile).current, getrlimit(Resource::Nofile).maximum);
        let config = Config::load(&Sources::default()).expect("the defaults");
        for allowed in [1024, 65_536, allowed] {
            let Shares { mqtt, kafka, http } = share(allowed, &config);
            assert!(mqtt > 0 && kafka > 0 && http > 0 && mqtt + kafka + http <= allowed / 4 * 3);
        }
        assert_eq!(share(1 << 20, &config), Shares { mqtt: 100_000, kafka: MAX_KAFKA, http: MAX_HTTP });
    }
}
