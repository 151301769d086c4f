//! The line that tells users and scripts that a node accepts, and where.

use super::{Addresses, Node};

impl Node {
    /// The line `forebay ready node=1 mqtt=... http=...`.
    #[must_use]
    pub fn ready_line(&self) -> String {
        self.gateway.addresses.ready_line(self.gateway.config.node.id)
    }
}

impl Addresses {
    /// The listeners that are on, by name.
    #[must_use]
    pub fn list(&self) -> Vec<(&'static str, std::net::SocketAddr)> {
        let all = [
            ("mqtt", self.mqtt),
            ("mqtts", self.mqtts),
            ("ws", self.ws),
            ("wss", self.wss),
            ("quic", self.quic),
            ("kafka", self.kafka),
            ("cluster", self.cluster),
            ("http", self.http),
        ];
        all.into_iter().filter_map(|(name, address)| Some((name, address?))).collect()
    }

    fn ready_line(&self, node: u32) -> String {
        let mut line = format!("forebay ready node={node}");
        for (name, address) in self.list() {
            line.push_str(&format!(" {name}={address}"));
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_that_are_off_are_left_out() {
        let addresses = Addresses {
            mqtt: "127.0.0.1:1883".parse().ok(),
            http: "127.0.0.1:8080".parse().ok(),
            ..Addresses::default()
        };
        assert_eq!(addresses.ready_line(1), "forebay ready node=1 mqtt=127.0.0.1:1883 http=127.0.0.1:8080");
    }
}
