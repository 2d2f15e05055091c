//! Logging in: what a server asks for in `WWW-Authenticate` (RFC 9110, 11.6.1), and the tokens of token servers
//! (Docker registry token authentication, and its OAuth2 form).

use percent_encoding::utf8_percent_encode;
use serde::Deserialize;
use ureq::http::{HeaderMap, Request, header};

use super::Registry;
use super::credentials::{Login, basic};
use super::request::{Server, Trouble, judged, small};
use crate::net::{Failure, RESERVED, Url, Watch};

/// The longest answer of a token server, in bytes.
const MOST_ANSWER: u64 = 1 << 20;

/// What a server wants.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Challenge {
    /// `bearer` or `basic`, in lower case.
    pub scheme: String,
    /// Names in lower case, with their values.
    pub parameters: Vec<(String, String)>,
}

impl Challenge {
    fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
}

impl Registry {
    /// The `Authorization` header that the answer of a server asks for.
    pub(super) fn log_in(
        &self,
        server: &Server,
        url: &Url,
        headers: &HeaderMap,
        watch: &dyn Watch,
    ) -> Result<String, Trouble> {
        let lines = headers.get_all(header::WWW_AUTHENTICATE).iter().filter_map(|line| line.to_str().ok());
        let challenges: Vec<Challenge> = lines.flat_map(challenges).collect();
        let of = |scheme: &str| challenges.iter().find(|challenge| challenge.scheme == scheme);
        let login = || self.credentials.login(&server.registry, &server.repository).map_err(Trouble::Ours);
        if let Some(bearer) = of("bearer") {
            return self.token(bearer, url, login()?, watch).map(|token| format!("Bearer {token}"));
        }
        match (of("basic"), login()?) {
            (Some(_), Login::Basic { user, secret }) => Ok(basic(&user, &secret)),
            (Some(_), _) => {
                Err(Trouble::Denied(format!("no credentials are known for `{}`", server.registry)))
            }
            (None, _) => Err(Trouble::Denied("it asks to log in, in no way that is known here".to_string())),
        }
    }

    /// Asks a token server.
    fn token(
        &self,
        challenge: &Challenge,
        from: &Url,
        login: Login,
        watch: &dyn Watch,
    ) -> Result<String, Trouble> {
        let wrong = |why: String| Trouble::Failed(Failure::Final(why));
        let realm = challenge.get("realm").unwrap_or_default();
        let realm =
            Url::parse(realm).map_err(|why| wrong(format!("its token server is `{realm}`: {why}")))?;
        let safe = match realm.scheme().as_str() {
            "https" => true,
            // As safe as the registry itself, or configured to be taken for it.
            "http" => {
                let host = realm.origin().trim_start_matches("http://");
                self.access.allows_plain(host) || realm.origin() == from.origin()
            }
            _ => false,
        };
        if !safe {
            return Err(wrong(format!("its token server `{realm}` is not reached by https")));
        }
        if let Some(why) = self.access.refuses(&realm) {
            return Err(wrong(format!("its token server is `{realm}`: {why}")));
        }
        let service = challenge.get("service").unwrap_or_default();
        let scopes: Vec<&str> = challenge.get("scope").unwrap_or_default().split(' ').collect();
        let scopes: Vec<&str> = scopes.into_iter().filter(|scope| !scope.is_empty()).collect();
        let response = match login {
            Login::Token(token) => return Ok(token),
            Login::Identity(refresh) => {
                let scope = scopes.join(" ");
                let form = [
                    ("grant_type", "refresh_token"),
                    ("service", service),
                    ("client_id", "isolith"),
                    ("scope", &scope),
                    ("refresh_token", &refresh),
                ];
                let request = Request::builder()
                    .method("POST")
                    .uri(realm.as_str())
                    .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
                self.send(request, encoded(&form), &realm, watch)?
            }
            other => {
                let mut query = Vec::new();
                if !service.is_empty() {
                    query.push(("service", service));
                }
                query.extend(scopes.iter().map(|scope| ("scope", *scope)));
                let glue = if realm.as_str().contains('?') { '&' } else { '?' };
                let asked = format!("{realm}{glue}{}", encoded(&query));
                let asked = Url::parse(&asked).map_err(|why| wrong(why.to_string()))?;
                let mut request = Request::builder().uri(asked.as_str());
                if let Login::Basic { user, secret } = &other {
                    request = request.header(header::AUTHORIZATION, basic(user, secret));
                }
                self.send(request, (), &asked, watch)?
            }
        };
        let answer = small(judged(response)?, MOST_ANSWER)?;
        let answer: Answer = serde_json::from_slice(&answer)
            .map_err(|_| wrong(format!("its token server `{realm}` gives no token")))?;
        let token = answer.token.or(answer.access_token).filter(|token| !token.is_empty());
        let good = |token: &String| token.bytes().all(|b| b.is_ascii_graphic());
        token.filter(good).ok_or_else(|| wrong(format!("its token server `{realm}` gives no token")))
    }
}

/// Pairs as a query or form: all but letters, digits and `-._~` as %XX.
fn encoded(pairs: &[(&str, &str)]) -> String {
    let escape = |text| utf8_percent_encode(text, &RESERVED);
    let pairs: Vec<String> = pairs.iter().map(|(key, value)| format!("{key}={}", escape(value))).collect();
    pairs.join("&")
}

/// The challenges of one header line: `Scheme key=value, key="value", Scheme2 …`.
pub fn challenges(line: &str) -> Vec<Challenge> {
    let mut found: Vec<Challenge> = Vec::new();
    let mut rest = line.trim();
    while !rest.is_empty() {
        let end = rest.find(|c: char| c == '=' || c == ',' || c.is_ascii_whitespace()).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let after = after.trim_start();
        match after.strip_prefix('=') {
            Some(value) if !word.is_empty() => {
                let (value, next) = value_of(value.trim_start());
                if let Some(challenge) = found.last_mut() {
                    challenge.parameters.push((word.to_ascii_lowercase(), value));
                }
                rest = next;
            }
            _ => {
                if !word.is_empty() {
                    found.push(Challenge { scheme: word.to_ascii_lowercase(), parameters: Vec::new() });
                }
                rest = after.strip_prefix('=').unwrap_or(after);
            }
        }
        rest = rest.trim_start().trim_start_matches(',').trim_start();
    }
    found
}

/// A token or quoted string, and what follows it.
fn value_of(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(|c: char| c == ',' || c.is_ascii_whitespace()).unwrap_or(text.len());
        return (text[..end].to_string(), &text[end..]);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_taken_apart() {
        let line = r#"Basic realm="a, \"b\"", Bearer realm="https://x/token?y=1",service=reg , scope="a:b:pull,push c""#;
        let found = challenges(line);
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(found[0].get("realm"), Some("a, \"b\""));
        assert_eq!(found[1].scheme, "bearer");
        assert_eq!(found[1].get("realm"), Some("https://x/token?y=1"));
        assert_eq!(found[1].get("service"), Some("reg"));
        assert_eq!(found[1].get("scope"), Some("a:b:pull,push c"));
        for odd in ["", ",", "=", "\"", "Bearer", "Bearer realm", "Bearer realm=\"x", "a=b", "é=\"ü\\"] {
            challenges(odd);
        }
    }

    #[test]
    fn forms_are_encoded() {
        assert_eq!(encoded(&[("a", "x:y/z,w"), ("b", "é ")]), "a=x%3Ay%2Fz%2Cw&b=%C3%A9%20");
    }
}
