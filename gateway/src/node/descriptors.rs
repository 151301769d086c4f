//! File descriptors: as many as the system allows, shared out so that connections never take those that the log needs.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;
use crate::http::MAX_CONNECTIONS as MAX_HTTP;
use crate::kafka::MAX_CONNECTIONS as MAX_KAFKA;

/// The fewest that the log needs.
const LOG_LEAST: usize = 256;

/// How many connections each door may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shares {
    pub(super) mqtt: usize,
    pub(super) kafka: usize,
    pub(super) http: usize,
}

/// Raises the soft limit (often 1024) to the hard one, or to what `config` can use where the process may do that, and returns
/// what is allowed then.
pub(super) fn raise(config: &Config) -> usize {
    raise_to(config.mqtt.max_connections.saturating_mul(2))
}

/// As [`raise`], for a program that can use so many.
pub(crate) fn raise_to(useful: usize) -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let useful = u64::try_from(useful).unwrap_or(u64::MAX);
    let both = |limit| Rlimit { current: limit, maximum: limit };
    let most = maximum.map(|hard| hard.max(useful));
    let allowed = [most, maximum].into_iter().find(|&limit| setrlimit(Resource::Nofile, both(limit)).is_ok());
    allowed.unwrap_or(current).map_or(usize::MAX, |allowed| usize::try_from(allowed).unwrap_or(usize::MAX))
}

/// At most an eighth each for Kafka and HTTP clients, an eighth but not fewer than [`LOG_LEAST`] for the log, the rest for meters.
pub(super) fn share(allowed: usize, config: &Config) -> Shares {
    let wanted = config.mqtt.max_connections;
    let (kafka, http) = (MAX_KAFKA.min(allowed / 8), MAX_HTTP.min(allowed / 8));
    let mqtt = wanted.min(allowed.saturating_sub(kafka + http + LOG_LEAST.max(allowed / 8)));
    if mqtt < wanted {
        tracing::info!(
            allowed,
            max_connections = mqtt,
            "the system allows too few open files for mqtt.max_connections = {wanted}: raise the hard limit (ulimit -Hn, LimitNOFILE)"
        );
    }
    Shares { mqtt, kafka, http }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    #[test]
    fn the_soft_limit_is_raised_and_connections_leave_the_log_its_share() {
        let config = Config::load(&Sources::default()).expect("the defaults");
        let allowed = raise(&config);
        assert_eq!(getrlimit(Resource::Nofile).current, getrlimit(Resource::Nofile).maximum);
        for allowed in [1024, 65_536, allowed] {
            let Shares { mqtt, kafka, http } = share(allowed, &config);
            assert!(mqtt > 0 && kafka > 0 && http > 0 && mqtt + kafka + http <= allowed - (allowed / 8).max(LOG_LEAST));
        }
        assert_eq!(share(1 << 20, &config), Shares { mqtt: 100_000, kafka: MAX_KAFKA, http: MAX_HTTP });
    }
}
