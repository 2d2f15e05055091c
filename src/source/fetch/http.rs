//! One download over http or https: the request, its redirects, and the rest of a file whose start is there.

use ureq::http::{HeaderMap, Response, StatusCode, header};
use ureq::{Agent, Body};

use super::{Access, Receiver, Trouble, Watch, interrupted};
use crate::net::{Failure, Patient, Url, agent, failure, while_wanted};

/// How often an answer may send us elsewhere.
const REDIRECTS: usize = 10;

/// Gets what is missing of the file at `url`.
pub(super) fn get(
    access: &Access,
    url: &Url,
    receiver: &mut Receiver,
    watch: &dyn Watch,
) -> Result<(), Trouble> {
    let mut url = url.clone();
    for _ in 0..=REDIRECTS {
        let agent = agent(access, &url).map_err(Trouble::Final)?;
        let next =
            while_wanted(watch, || agent.clone().shutdown(), || ask(&agent, access, &url, receiver, watch))?;
        let Some(location) = next else { return Ok(()) };
        let to = url
            .join(&location)
            .map_err(|why| Trouble::Final(format!("it redirects to `{location}`: {why}")))?;
        if to.file().is_some() {
            return Err(Trouble::Final(format!("it redirects to the local file `{to}`")));
        }
        if url.scheme() == "https" && to.scheme() == "http" {
            return Err(Trouble::Final(format!("it redirects from https to `{to}`, which is not safe")));
        }
        if let Some(why) = access.refuses(&to) {
            return Err(Trouble::Final(format!("it redirects to `{to}`: {why}")));
        }
        url = to;
    }
    Err(Trouble::Final(format!("it redirects more than {REDIRECTS} times")))
}

/// One request. Gives where it is redirected to, if it is.
fn ask(
    agent: &Agent,
    access: &Access,
    url: &Url,
    receiver: &mut Receiver,
    watch: &dyn Watch,
) -> Result<Option<String>, Trouble> {
    let offset = receiver.offset();
    let mut request = agent.get(url.as_str());
    if offset > 0 {
        request = request.header(header::RANGE, format!("bytes={offset}-"));
        if let Some(validator) = &receiver.validator {
            request = request.header(header::IF_RANGE, validator);
        }
    }
    let response = request.call().map_err(|why| trouble(failure(why, access, watch)))?;
    let (status, headers) = (response.status(), response.headers().clone());
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let total = match status {
        StatusCode::OK => {
            receiver.restart()?;
            receiver.validator = validator(&headers);
            length(&response)
        }
        StatusCode::PARTIAL_CONTENT => {
            // "bytes 100-199/200"
            let range = text(header::CONTENT_RANGE).and_then(|range| range.strip_prefix("bytes "));
            let (start, total) = match range.and_then(|range| range.split_once('/')) {
                Some((range, total)) => (range.split('-').next().and_then(|n| n.parse().ok()), total),
                None => (None, ""),
            };
            if offset == 0 || start != Some(offset) {
                receiver.restart()?;
                return Err(Trouble::Passing(
                    "it answers with another part of the file than was asked for".into(),
                ));
            }
            receiver.resume();
            total.parse().ok().or_else(|| length(&response).map(|rest| offset + rest))
        }
        StatusCode::RANGE_NOT_SATISFIABLE => {
            receiver.restart()?;
            return Err(Trouble::Passing("it does not have the rest of the file".into()));
        }
        StatusCode::MOVED_PERMANENTLY
        | StatusCode::FOUND
        | StatusCode::SEE_OTHER
        | StatusCode::TEMPORARY_REDIRECT
        | StatusCode::PERMANENT_REDIRECT => {
            return match text(header::LOCATION) {
                Some(location) => Ok(Some(location.to_string())),
                None => Err(Trouble::Final("it redirects to nowhere".into())),
            };
        }
        status => {
            let may_pass = status.is_server_error()
                || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
            let said = format!("the server says {status}");
            return Err(if may_pass { Trouble::Passing(said) } else { Trouble::Final(said) });
        }
    };
    // One more than may come, so that it is noticed there.
    let limit = access.max_size.saturating_add(1);
    let mut body = Patient(response.into_body().into_with_config().limit(limit).reader());
    receiver.take(&mut body, total, access, url.as_str(), watch).map(|()| None)
}

fn length(response: &Response<Body>) -> Option<u64> {
    response.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// What names this version of the file: only a strong ETag will do (RFC 9110, 13.1.5).
fn validator(headers: &HeaderMap) -> Option<String> {
    let tag = headers.get(header::ETAG).and_then(|tag| tag.to_str().ok());
    tag.filter(|tag| tag.starts_with('"')).map(str::to_string)
}

fn trouble(why: Failure) -> Trouble {
    match why {
        Failure::Passing(why) => Trouble::Passing(why),
        Failure::Final(why) => Trouble::Final(why),
        Failure::Cancelled => Trouble::Ours(interrupted()),
    }
}
