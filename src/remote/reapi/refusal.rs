//! Answers that are not gRPC: those of proxies and gateways before a server, which speak http.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tonic::body::Body;
use tonic::codegen::http::{Request, Response, StatusCode};
use tonic::{Code, Status};
use tower_service::Service;

/// Gives an http status that is no success as the status of gRPC that it stands for, without the page that comes with it.
#[derive(Clone)]
pub(super) struct Refusals<S>(pub S);

impl<S> Service<Request<Body>> for Refusals<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answer = self.0.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            let status = answer.status();
            match status == StatusCode::OK || answer.headers().contains_key("grpc-status") {
                true => Ok(answer),
                false => Ok(Status::new(code(status), format!("the server says {status}")).into_http()),
            }
        })
    }
}

/// As gRPC's "HTTP to gRPC Status Code Mapping" has it, and what it leaves out of what servers say when they are full.
fn code(status: StatusCode) -> Code {
    match status.as_u16() {
        400 => Code::Internal,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::Unimplemented,
        413 | 507 => Code::ResourceExhausted,
        429 | 502 | 503 | 504 => Code::Unavailable,
        _ => Code::Unknown,
    }
}
