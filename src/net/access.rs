//! What may be reached from here and how: mirrors, allowed hosts, proxies, limits.

use std::path::PathBuf;
use std::time::Duration;

use super::Url;

/// The policy for everything that is fetched. The library reads no environment: whoever calls it says what
/// the proxies are.
#[derive(Debug, Clone)]
pub struct Access {
    /// No socket is ever opened; `file:` URLs and what the store holds can still be used.
    pub offline: bool,
    /// Prefixes of URLs, and what is tried instead of them, in this order, before the URL itself.
    pub mirrors: Vec<(String, Vec<String>)>,
    /// The only hosts that may be asked, when there is a list: a name, or `.name` for all below it. A proxy
    /// need not be one of them.
    pub allowed_hosts: Option<Vec<String>>,
    /// Servers, as `host` or `host:port`, that are asked without TLS; this machine is without being named.
    pub plain_http: Vec<String>,
    /// Through which proxies.
    pub proxies: Proxies,
    /// A file of certificates (PEM) to trust instead of the system's.
    pub certificates: Option<PathBuf>,
    /// The largest file that is taken, in bytes.
    pub max_size: u64,
    /// How long it may take until a connection is there.
    pub connect: Duration,
    /// How long nothing (or next to nothing) may come before a server counts as stalled.
    pub stall: Duration,
    /// How often a URL is tried, when what went wrong may pass; at least 1.
    pub tries: u32,
    /// The pause before the second try; it doubles with each.
    pub pause: Duration,
}

impl Default for Access {
    fn default() -> Self {
        Self {
            offline: false,
            mirrors: Vec::new(),
            allowed_hosts: None,
            plain_http: Vec::new(),
            proxies: Proxies::default(),
            certificates: None,
            max_size: 16 << 30,
            connect: Duration::from_secs(30),
            stall: Duration::from_secs(30),
            tries: 4,
            pause: Duration::from_millis(500),
        }
    }
}

/// Proxies as the environment names them.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    /// `http_proxy`: for `http:` URLs.
    pub http: Option<String>,
    /// `https_proxy`: for `https:` URLs.
    pub https: Option<String>,
    /// `no_proxy`: hosts that are asked directly, comma-separated: a name stands for itself and all below
    /// it, `*` for every host.
    pub none: Option<String>,
}

impl Proxies {
    /// The proxy for a URL.
    pub fn of(&self, url: &Url) -> Option<&str> {
        let proxy = if url.scheme() == "https" { &self.https } else { &self.http };
        let host = url.host();
        let direct = self.none.iter().flat_map(|list| list.split(',')).map(str::trim).any(|name| {
            let name = name.trim_start_matches("*.").trim_start_matches('.').to_ascii_lowercase();
            name == "*" || (!name.is_empty() && is_at_or_below(&host, &name))
        });
        proxy.as_deref().filter(|_| !direct)
    }
}

/// A URL that may be tried, or why not.
pub enum Candidate {
    /// It may.
    Try(Url),
    /// It may not.
    Refused(String, String),
}

impl Access {
    /// The URLs to try for `url`, in order: its mirrors, then itself.
    pub fn rewritten(&self, url: &str) -> Vec<String> {
        // The longest prefix is the one that is meant.
        let best = self
            .mirrors
            .iter()
            .filter(|(prefix, _)| url.starts_with(prefix))
            .max_by_key(|(prefix, _)| prefix.len());
        let mirrored = best.into_iter().flat_map(|(prefix, mirrors)| {
            mirrors.iter().map(|mirror| format!("{mirror}{}", &url[prefix.len()..]))
        });
        mirrored.chain([url.to_string()]).collect()
    }

    /// The same, each with whether it may be tried.
    pub fn candidates(&self, url: &str) -> Vec<Candidate> {
        let judge = |url: String| match Url::parse(&url) {
            Ok(parsed) => match self.refuses(&parsed) {
                None => Candidate::Try(parsed),
                Some(why) => Candidate::Refused(url, why),
            },
            Err(why) => Candidate::Refused(url, why.to_string()),
        };
        self.rewritten(url).into_iter().map(judge).collect()
    }

    /// Why a URL may not be asked for; none when it may.
    pub fn refuses(&self, url: &Url) -> Option<String> {
        if url.scheme() == "file" {
            return None;
        }
        self.refuses_host(&url.host())
    }

    /// Why a host may not be asked; none when it may.
    pub fn refuses_host(&self, host: &str) -> Option<String> {
        if self.offline {
            return Some("isolith is offline".to_string());
        }
        let allowed = self.allowed_hosts.as_ref()?.iter().any(|name| match name.strip_prefix('.') {
            Some(domain) => is_at_or_below(host, domain) && host != domain,
            None => host == *name,
        });
        (!allowed).then(|| format!("the host `{host}` is not one of `allowed-hosts`"))
    }

    /// Whether a host, maybe with a port, may be asked without TLS: it is this machine, or one of `plain_http`.
    pub fn allows_plain(&self, host: &str) -> bool {
        is_loopback(host) || self.plain_http.iter().any(|name| name == host)
    }
}

/// Whether a host, maybe with a port, is this machine.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn is_at_or_below(host: &str, domain: &str) -> bool {
    host == domain || host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn the_longest_prefix_is_rewritten_and_the_url_itself_comes_last() {
        let access = Access {
            mirrors: vec![
                ("https://a/".into(), vec!["http://m/a/".into()]),
                ("https://a/b/".into(), vec!["http://m/b/".into(), "file:///b/".into()]),
            ],
            ..Access::default()
        };
        let tried = |url: &str| -> Vec<String> {
            let shown = |candidate| match candidate {
                Candidate::Try(url) => url.to_string(),
                Candidate::Refused(url, _) => format!("not {url}"),
            };
            access.candidates(url).into_iter().map(shown).collect()
        };
        assert_eq!(tried("https://a/b/c"), ["http://m/b/c", "file:///b/c", "https://a/b/c"]);
        assert_eq!(tried("https://a/c"), ["http://m/a/c", "https://a/c"]);
        assert_eq!(tried("https://c/"), ["https://c/"]);
    }

    #[test]
    fn hosts_and_offline() {
        let hosts = Some(vec!["a.org".to_string(), ".b.org".to_string()]);
        let access = Access { allowed_hosts: hosts, ..Access::default() };
        for good in ["http://a.org/", "https://A.org:1/", "http://x.b.org/", "file:///x"] {
            assert_eq!(access.refuses(&url(good)), None, "{good}");
        }
        for bad in ["http://x.a.org/", "http://b.org/", "http://xb.org/", "http://a.org.evil/"] {
            assert!(access.refuses(&url(bad)).is_some(), "{bad}");
        }
        let offline = Access { offline: true, ..Access::default() };
        assert!(offline.refuses(&url("http://a/")).is_some());
        assert_eq!(offline.refuses(&url("file:///a")), None);
    }

    #[test]
    fn proxies_by_scheme_and_exception() {
        let proxies = Proxies {
            http: Some("http://p:1".into()),
            https: None,
            none: Some("localhost, .inner.org,*.x.org".into()),
        };
        assert_eq!(proxies.of(&url("http://a/")), Some("http://p:1"));
        for direct in ["https://a/", "http://localhost:8/", "http://a.inner.org/", "http://y.x.org/"] {
            assert_eq!(proxies.of(&url(direct)), None, "{direct}");
        }
        let all = Proxies { none: Some("*".into()), ..proxies };
        assert_eq!(all.of(&url("http://a/")), None);
    }

    #[test]
    fn this_machine_is_known_by_its_names() {
        for host in ["localhost", "localhost:5000", "127.0.0.1:1", "127.1.2.3", "[::1]:5000", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["localhost.example", "128.0.0.1", "[::2]:1", "example", ""] {
            assert!(!is_loopback(host), "{host}");
        }
        let access = Access { plain_http: vec!["a:1".to_string()], ..Access::default() };
        assert!(access.allows_plain("a:1") && access.allows_plain("[::1]:1") && !access.allows_plain("a"));
    }
}
