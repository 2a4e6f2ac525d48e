//! The server's names: a request is taken if it was signed for one of them.

use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;

use tern_host::tls::ServerSide;

/// Names by which clients reach this server: those that the operator lists, else those of its
/// certificate and the address that it listens on.
pub(super) struct Hosts {
    listed: Vec<String>,
    tls: Option<ServerSide>,
    /// Known once it listens.
    listens: OnceLock<SocketAddr>,
}

impl Hosts {
    pub fn new(listed: Vec<String>, tls: Option<ServerSide>) -> Self {
        let as_signed = |host: String| {
            let bare = host.strip_suffix(":443").or_else(|| host.strip_suffix(":80"));
            bare.unwrap_or(&host).to_ascii_lowercase()
        };
        let listed = listed.into_iter().map(as_signed).collect();
        Hosts { listed, tls, listens: OnceLock::new() }
    }

    /// The server listens here from now on.
    pub fn listen(&self, address: SocketAddr) {
        // Err: it already does.
        let _ = self.listens.set(address);
        if self.listed.is_empty() && self.tls.is_none() && address.ip().is_unspecified() {
            tracing::warn!(%address, "no request is taken: the server has neither names nor TLS");
        }
    }

    /// Whether a host, as a client's address names it, is this server.
    pub fn is_own(&self, host: &str) -> bool {
        if !self.listed.is_empty() {
            return self.listed.iter().any(|own| own == host);
        }
        let Some(listens) = self.listens.get() else { return false };
        let scheme = if self.tls.is_some() { 443 } else { 80 };
        let (name, port) = match host.rsplit_once(':') {
            // The colon may be one of an IPv6 address, which is in brackets.
            Some((name, port)) if !port.ends_with(']') => (name, port.parse().ok()),
            _ => (host, Some(scheme)),
        };
        let name = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).unwrap_or(name);
        let ip = listens.ip();
        let is_here = || match name.parse::<IpAddr>() {
            Ok(named) => named == ip && !ip.is_unspecified(),
            Err(_) => name == "localhost" && ip.is_loopback(),
        };
        port == Some(listens.port())
            && (is_here() || self.tls.as_ref().is_some_and(|tls| tls.is_for(name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listening(listed: &[&str], address: &str) -> Hosts {
        let hosts = Hosts::new(listed.iter().map(|&host| host.into()).collect(), None);
        hosts.listen(address.parse().unwrap());
        hosts
    }

    #[test]
    fn a_server_is_what_is_listed_or_where_it_listens() {
        let own = |hosts: &Hosts, all: &[&str]| -> Vec<String> {
            all.iter().filter(|host| hosts.is_own(host)).map(|&host| host.into()).collect()
        };
        let all = [
            "127.0.0.1:8443",
            "localhost:8443",
            "localhost",
            "127.0.0.1:8444",
            "127.0.0.2:8443",
            "[::1]:8443",
            "a.example:8443",
            "a.example",
            "",
            ":",
            "]",
        ];
        let here = listening(&[], "127.0.0.1:8443");
        assert_eq!(own(&here, &all), ["127.0.0.1:8443", "localhost:8443"]);
        let here = listening(&[], "[::1]:8443");
        assert_eq!(own(&here, &all), ["localhost:8443", "[::1]:8443"]);
        assert_eq!(own(&listening(&[], "127.0.0.1:80"), &all), ["localhost"]);
        // Behind a proxy, whatever it listens on.
        let listed = listening(&["A.example"], "127.0.0.1:8443");
        assert_eq!(own(&listed, &all), ["a.example"]);
        // Clients leave out the scheme's port.
        assert_eq!(own(&listening(&["a.example:443"], "127.0.0.1:8443"), &all), ["a.example"]);
        assert!(own(&listening(&[], "0.0.0.0:8443"), &all).is_empty());
    }
}
