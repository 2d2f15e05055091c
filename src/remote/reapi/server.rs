//! One server and its clock: requests that end in time, are sent once more when that may help, and whose errors say
//! what can be done.

use std::future::Future;
use std::time::Duration;

use bazel_remote_apis::google::bytestream::byte_stream_client::ByteStreamClient;
use re::action_cache_client::ActionCacheClient;
use re::capabilities_client::CapabilitiesClient;
use re::content_addressable_storage_client::ContentAddressableStorageClient;
use tokio::runtime::Runtime;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use super::super::address::Address;
use super::super::settings::Deadline;
use super::super::{LEAST_RATE, Limits, Settings};
use super::connection::channel;
use super::headers::Headers;
use super::re;
use super::refusal::Refusals;
use crate::error::{Error, Result};

/// How often a request is made that may go better next time.
pub(super) const TRIES: usize = 2;
/// The pause between.
pub(super) const PAUSE: Duration = Duration::from_millis(200);
/// The longest answer that is taken, in bytes. Servers send up to 4 MiB at a time, most of them.
const MOST_ANSWER: usize = 16 << 20;
/// Requests under way at a time.
const AT_ONCE: usize = 128;

type Wire = InterceptedService<Refusals<Channel>, Headers>;

/// A server of the Remote Execution API.
pub(super) struct Server {
    /// What it is called in messages.
    pub name: String,
    /// Which of its instances is asked.
    pub instance: String,
    pub limits: Limits,
    headers: Headers,
    wire: Wire,
    /// Driven by whichever threads wait for an answer: no thread is made for it, so none is left behind.
    runtime: Runtime,
}

impl Server {
    pub fn open(address: &Address, settings: &Settings) -> Result<Server> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|why| Error::machine("cannot wait for the network").because(why))?;
        let headers = Headers::of(address, settings)?;
        let wire = {
            let _inside = runtime.enter();
            InterceptedService::new(Refusals(channel(address, settings)?), headers.clone())
        };
        let (name, instance) = (address.shown(), address.path.clone());
        Ok(Server { name, instance, limits: settings.limits, headers, wire, runtime })
    }

    pub fn cas(&self) -> ContentAddressableStorageClient<Wire> {
        ContentAddressableStorageClient::new(self.wire.clone()).max_decoding_message_size(MOST_ANSWER)
    }

    pub fn actions(&self) -> ActionCacheClient<Wire> {
        ActionCacheClient::new(self.wire.clone()).max_decoding_message_size(MOST_ANSWER)
    }

    pub fn bytes(&self) -> ByteStreamClient<Wire> {
        ByteStreamClient::new(self.wire.clone()).max_decoding_message_size(MOST_ANSWER)
    }

    pub fn capabilities(&self) -> CapabilitiesClient<Wire> {
        CapabilitiesClient::new(self.wire.clone())
    }

    /// Waits for something that moves so many bytes.
    pub fn run<T>(
        &self,
        deadline: Deadline,
        bytes: usize,
        work: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        self.runtime.block_on(in_time(deadline, self.limits.idle, bytes, work))
    }

    /// Starts something that goes on while others are waited for.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.runtime.spawn(work)
    }

    /// Sends a request that moves so many bytes; once more when that may go better.
    pub fn ask<T, F: Future<Output = Result<Response<T>, Status>>>(
        &self,
        deadline: Deadline,
        bytes: usize,
        send: impl Fn() -> F,
    ) -> Result<T, Status> {
        again(deadline, || self.run(deadline, bytes, send()).map(Response::into_inner))
    }

    /// Sends many requests, as many at a time as may be; each once more when that may go better.
    pub fn ask_all<T: Send + 'static, F>(
        &self,
        deadline: Deadline,
        count: usize,
        send: impl Fn(usize) -> F,
    ) -> Vec<Result<T, Status>>
    where
        F: Future<Output = Result<Response<T>, Status>> + Send + 'static,
    {
        let idle = self.limits.idle;
        let round = |which: &[usize]| -> Vec<Result<T, Status>> {
            self.runtime.block_on(async {
                let mut done = Vec::with_capacity(which.len());
                for some in which.chunks(AT_ONCE) {
                    let one = |at: &usize| tokio::spawn(in_time(deadline, idle, 0, send(*at)));
                    let started: Vec<_> = some.iter().map(one).collect();
                    for task in started {
                        let answer =
                            task.await.unwrap_or_else(|_| Err(Status::internal("a request was lost")));
                        done.push(answer.map(Response::into_inner));
                    }
                }
                done
            })
        };
        let mut answers = round(&(0..count).collect::<Vec<_>>());
        let failed = |answer: &Result<T, Status>| answer.as_ref().is_err_and(may_pass);
        let again: Vec<usize> = (0..count).filter(|at| failed(&answers[*at])).collect();
        if !again.is_empty() && deadline.left().is_some_and(|left| left > PAUSE) {
            std::thread::sleep(PAUSE);
            for (at, answer) in again.iter().zip(round(&again)) {
                answers[*at] = answer;
            }
        }
        answers
    }

    /// The error for what a request came to.
    pub fn failed(&self, what: &str, why: &Status, deadline: Deadline) -> Error {
        let text = causes(why.message(), std::error::Error::source(why));
        let text: String = text.chars().filter(|c| !c.is_control()).take(300).collect();
        let text = self.headers.without_secrets(text);
        let error = Error::machine(format!("cannot {what} {}", self.name))
            .because(format!("{:?}: {text}", why.code()));
        let hint = match why.code() {
            Code::Unauthenticated | Code::PermissionDenied => {
                "give a token in REAPI_TOKEN, or `headers` in the settings of this remote; the guide says how"
            }
            Code::ResourceExhausted => "it is full, or allows no more requests now: see its quota",
            Code::InvalidArgument if text.contains("nstance") => {
                "the path of the URL is the name of an instance: grpc://host:port/instance"
            }
            Code::Unimplemented => {
                "it has to have a ContentAddressableStorage and an ActionCache of version 2"
            }
            _ => return super::super::late(&self.name, deadline, error),
        };
        super::super::late(&self.name, deadline, error.hint(hint))
    }
}

/// Does it once more when that may go better.
pub(super) fn again<T>(deadline: Deadline, mut work: impl FnMut() -> Result<T, Status>) -> Result<T, Status> {
    for _ in 1..TRIES {
        match work() {
            Err(why) if may_pass(&why) && deadline.left().is_some_and(|left| left > PAUSE) => {
                std::thread::sleep(PAUSE);
            }
            done => return done,
        }
    }
    work()
}

/// Whether it may go better next time. Nothing that is asked here does harm when it is done twice.
pub(super) fn may_pass(why: &Status) -> bool {
    matches!(why.code(), Code::Unavailable | Code::Aborted | Code::Internal | Code::Unknown | Code::Cancelled)
}

async fn in_time<T>(
    deadline: Deadline,
    idle: Duration,
    bytes: usize,
    work: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    let Some(left) = deadline.left() else { return Err(Status::deadline_exceeded("no time is left")) };
    let patience = left.min(idle + Duration::from_millis(bytes as u64 * 1000 / LEAST_RATE));
    match tokio::time::timeout(patience, work).await {
        Ok(done) => done,
        Err(_) => Err(Status::deadline_exceeded("the server has stalled")),
    }
}

/// A message and what it comes from, in one line: "transport error" alone tells nobody anything.
pub(super) fn causes(message: &str, mut source: Option<&(dyn std::error::Error + 'static)>) -> String {
    let mut text = message.to_string();
    while let Some(why) = source {
        let part = why.to_string();
        if !text.contains(&part) {
            text = format!("{text}: {part}");
        }
        source = why.source();
    }
    text
}
