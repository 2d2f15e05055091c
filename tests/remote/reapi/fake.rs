//! A server of the Remote Execution API that does right, until it is told not to: with limits as small as one likes,
//! compressed blobs, and all that a good server never does.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bazel_remote_apis::build::bazel::remote::execution::v2 as re;
use bazel_remote_apis::google::bytestream::byte_stream_server::{ByteStream, ByteStreamServer};
use bazel_remote_apis::google::bytestream::{
    QueryWriteStatusRequest, QueryWriteStatusResponse, ReadRequest, ReadResponse, WriteRequest, WriteResponse,
};
use bazel_remote_apis::google::rpc;
use re::action_cache_server::{ActionCache, ActionCacheServer};
use re::capabilities_server::{Capabilities, CapabilitiesServer};
use re::content_addressable_storage_server::{ContentAddressableStorage, ContentAddressableStorageServer};
use re::{ActionResult, Digest};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::suite::blob;

const IDENTITY: i32 = 0;
const ZSTD: i32 = 1;
/// Its only instance.
pub const INSTANCE: &str = "one/two";

/// How it behaves.
#[derive(Default)]
pub struct Way {
    /// The limit of batches, in bytes.
    pub batch: i64,
    /// It speaks zstd.
    pub zstd: bool,
    /// The largest blob.
    pub most_blob: i64,
    /// Results cannot be put there.
    pub frozen: bool,
    /// It names blobs by SHA-1.
    pub sha1: bool,
    /// Requests that it turns away before it works.
    pub busy: AtomicUsize,
    /// Streams that it breaks off in the middle.
    pub cut: AtomicUsize,
    /// It gives other bytes than it has.
    pub wrong: std::sync::atomic::AtomicBool,
    /// It stops in the middle of streams, and answers no batch.
    pub stalled: std::sync::atomic::AtomicBool,
}

/// What it has seen.
#[derive(Default)]
pub struct Seen {
    pub find_missing: AtomicUsize,
    pub batches: AtomicUsize,
    pub largest_batch: AtomicUsize,
    pub packed_in_batches: AtomicUsize,
    pub packed_streams: AtomicUsize,
    pub plain_streams: AtomicUsize,
    pub results_asked: AtomicUsize,
}

#[derive(Default)]
pub struct State {
    pub way: Way,
    pub seen: Seen,
    pub blobs: Mutex<HashMap<String, Vec<u8>>>,
    results: Mutex<HashMap<String, ActionResult>>,
}

/// The server, until the process ends.
pub struct Fake {
    pub state: Arc<State>,
    pub url: String,
}

#[derive(Clone)]
struct Service(Arc<State>);

impl Fake {
    pub fn new(way: Way) -> Fake {
        let state = Arc::new(State { way, ..State::default() });
        let port = crate::common::registry::free_port();
        let address: SocketAddr = ([127, 0, 0, 1], port).into();
        let service = Service(state.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
            let server = tonic::transport::Server::builder()
                .add_service(CapabilitiesServer::new(service.clone()))
                .add_service(ContentAddressableStorageServer::new(service.clone()))
                .add_service(ActionCacheServer::new(service.clone()))
                .add_service(ByteStreamServer::new(service));
            runtime.unwrap().block_on(server.serve(address)).unwrap();
        });
        while TcpStream::connect(address).is_err() {
            std::thread::sleep(Duration::from_millis(5));
        }
        Fake { state, url: format!("grpc://{address}/{INSTANCE}") }
    }
}

fn once(count: &AtomicUsize) -> bool {
    count.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok()
}

impl State {
    fn enter(&self, instance: &str) -> Result<(), Status> {
        if once(&self.way.busy) {
            return Err(Status::unavailable("come back later"));
        }
        match instance == INSTANCE {
            true => Ok(()),
            false => Err(Status::invalid_argument("no such instance")),
        }
    }

    fn bytes(&self, digest: &Digest) -> Option<Vec<u8>> {
        let mut bytes = self.blobs.lock().unwrap().get(&digest.hash)?.clone();
        if bytes.len() as i64 != digest.size_bytes {
            return None;
        }
        if self.way.wrong.load(Relaxed)
            && let Some(last) = bytes.last_mut()
        {
            *last ^= 1;
        }
        Some(bytes)
    }

    fn take(&self, digest: &Digest, bytes: Vec<u8>) -> Result<(), Status> {
        let right = blob(&bytes).digest.as_ref() == format!("sha256:{}", digest.hash);
        if !right || bytes.len() as i64 != digest.size_bytes {
            return Err(Status::invalid_argument("these are other bytes"));
        }
        self.blobs.lock().unwrap().insert(digest.hash.clone(), bytes);
        Ok(())
    }
}

fn status(code: Code) -> Option<rpc::Status> {
    Some(rpc::Status { code: code as i32, ..rpc::Status::default() })
}

#[tonic::async_trait]
impl Capabilities for Service {
    async fn get_capabilities(
        &self,
        request: Request<re::GetCapabilitiesRequest>,
    ) -> Result<Response<re::ServerCapabilities>, Status> {
        self.0.enter(&request.into_inner().instance_name)?;
        let way = &self.0.way;
        let zstd: Vec<i32> = way.zstd.then_some(ZSTD).into_iter().collect();
        let cache = re::CacheCapabilities {
            digest_functions: vec![if way.sha1 { 2 } else { 1 }],
            action_cache_update_capabilities: Some(re::ActionCacheUpdateCapabilities {
                update_enabled: !way.frozen,
            }),
            max_batch_total_size_bytes: way.batch,
            max_cas_blob_size_bytes: way.most_blob,
            supported_compressors: zstd.clone(),
            supported_batch_update_compressors: zstd,
            ..Default::default()
        };
        Ok(Response::new(re::ServerCapabilities { cache_capabilities: Some(cache), ..Default::default() }))
    }
}

#[tonic::async_trait]
impl ActionCache for Service {
    async fn get_action_result(
        &self,
        request: Request<re::GetActionResultRequest>,
    ) -> Result<Response<ActionResult>, Status> {
        let request = request.into_inner();
        self.0.enter(&request.instance_name)?;
        self.0.seen.results_asked.fetch_add(1, Relaxed);
        let hash = request.action_digest.unwrap_or_default().hash;
        match self.0.results.lock().unwrap().get(&hash) {
            // What is in the CAS it does not give twice, as the API allows.
            Some(result) => Ok(Response::new(ActionResult { stdout_raw: Vec::new(), ..result.clone() })),
            None => Err(Status::not_found("no such result")),
        }
    }

    async fn update_action_result(
        &self,
        request: Request<re::UpdateActionResultRequest>,
    ) -> Result<Response<ActionResult>, Status> {
        let request = request.into_inner();
        self.0.enter(&request.instance_name)?;
        let (digest, result) =
            (request.action_digest.unwrap_or_default(), request.action_result.unwrap_or_default());
        // The action has to be there, and what its result refers to.
        let files = result.output_files.iter().filter_map(|file| file.digest.as_ref());
        for wanted in
            files.chain([&digest]).chain(&result.stdout_digest).filter(|digest| digest.size_bytes > 0)
        {
            self.0
                .bytes(wanted)
                .ok_or_else(|| Status::invalid_argument(format!("{} is missing", wanted.hash)))?;
        }
        self.0.results.lock().unwrap().insert(digest.hash, result.clone());
        Ok(Response::new(result))
    }
}

#[tonic::async_trait]
impl ContentAddressableStorage for Service {
    async fn find_missing_blobs(
        &self,
        request: Request<re::FindMissingBlobsRequest>,
    ) -> Result<Response<re::FindMissingBlobsResponse>, Status> {
        let request = request.into_inner();
        self.0.enter(&request.instance_name)?;
        self.0.seen.find_missing.fetch_add(1, Relaxed);
        let missing = request.blob_digests.into_iter().filter(|digest| self.0.bytes(digest).is_none());
        Ok(Response::new(re::FindMissingBlobsResponse { missing_blob_digests: missing.collect() }))
    }

    async fn batch_update_blobs(
        &self,
        request: Request<re::BatchUpdateBlobsRequest>,
    ) -> Result<Response<re::BatchUpdateBlobsResponse>, Status> {
        let request = request.into_inner();
        self.0.enter(&request.instance_name)?;
        let (way, seen) = (&self.0.way, &self.0.seen);
        let size: i64 =
            request.requests.iter().map(|one| one.digest.clone().unwrap_or_default().size_bytes).sum();
        if way.batch > 0 && size > way.batch {
            return Err(Status::invalid_argument("the batch is too large"));
        }
        seen.batches.fetch_add(1, Relaxed);
        seen.largest_batch.fetch_max(size as usize, Relaxed);
        let mut responses = Vec::new();
        for one in request.requests {
            let digest = one.digest.unwrap_or_default();
            let bytes = match one.compressor {
                IDENTITY => one.data,
                ZSTD if way.zstd => {
                    seen.packed_in_batches.fetch_add(1, Relaxed);
                    zstd::decode_all(&one.data[..])
                        .map_err(|why| Status::invalid_argument(why.to_string()))?
                }
                _ => return Err(Status::invalid_argument("an unknown compressor")),
            };
            let code = self.0.take(&digest, bytes).map_or_else(|why| why.code(), |()| Code::Ok);
            responses.push(re::batch_update_blobs_response::Response {
                digest: Some(digest),
                status: status(code),
            });
        }
        Ok(Response::new(re::BatchUpdateBlobsResponse { responses }))
    }

    async fn batch_read_blobs(
        &self,
        request: Request<re::BatchReadBlobsRequest>,
    ) -> Result<Response<re::BatchReadBlobsResponse>, Status> {
        let request = request.into_inner();
        self.0.enter(&request.instance_name)?;
        let (way, seen) = (&self.0.way, &self.0.seen);
        if way.stalled.load(Relaxed) {
            std::future::pending::<()>().await;
        }
        let size: i64 = request.digests.iter().map(|digest| digest.size_bytes).sum();
        if way.batch > 0 && size > way.batch {
            return Err(Status::invalid_argument("the batch is too large"));
        }
        seen.batches.fetch_add(1, Relaxed);
        seen.largest_batch.fetch_max(size as usize, Relaxed);
        let packs = way.zstd && request.acceptable_compressors.contains(&ZSTD);
        let one = |digest: Digest| {
            let found = self.0.bytes(&digest);
            let code = if found.is_some() { Code::Ok } else { Code::NotFound };
            let bytes = found.unwrap_or_default();
            let (data, compressor) = match packs {
                true => (zstd::encode_all(&bytes[..], 1).unwrap(), ZSTD),
                false => (bytes, IDENTITY),
            };
            let status = status(code);
            re::batch_read_blobs_response::Response { digest: Some(digest), data, compressor, status }
        };
        let responses = request.digests.into_iter().map(one).collect();
        Ok(Response::new(re::BatchReadBlobsResponse { responses }))
    }

    type GetTreeStream = ReceiverStream<Result<re::GetTreeResponse, Status>>;

    async fn get_tree(
        &self,
        _: Request<re::GetTreeRequest>,
    ) -> Result<Response<Self::GetTreeStream>, Status> {
        Err(Status::unimplemented("no trees"))
    }

    async fn split_blob(
        &self,
        _: Request<re::SplitBlobRequest>,
    ) -> Result<Response<re::SplitBlobResponse>, Status> {
        Err(Status::unimplemented("no splitting"))
    }

    type GetChunkMappingStream = ReceiverStream<Result<re::GetChunkMappingResponse, Status>>;

    async fn get_chunk_mapping(
        &self,
        _: Request<re::GetChunkMappingRequest>,
    ) -> Result<Response<Self::GetChunkMappingStream>, Status> {
        Err(Status::unimplemented("no chunks"))
    }

    async fn register_chunk_mapping(
        &self,
        _: Request<Streaming<re::RegisterChunkMappingRequest>>,
    ) -> Result<Response<re::RegisterChunkMappingResponse>, Status> {
        Err(Status::unimplemented("no chunks"))
    }

    async fn splice_blob(
        &self,
        _: Request<re::SpliceBlobRequest>,
    ) -> Result<Response<re::SpliceBlobResponse>, Status> {
        Err(Status::unimplemented("no splicing"))
    }
}

/// The digest that a resource names, and whether it is compressed.
fn named(resource: &str) -> Result<(Digest, bool), Status> {
    let wrong = || Status::invalid_argument(format!("what is {resource}?"));
    let rest = resource.strip_prefix(INSTANCE).and_then(|rest| rest.strip_prefix('/')).ok_or_else(wrong)?;
    let parts: Vec<&str> = rest.split('/').collect();
    let (packed, hash, size) = match parts[..] {
        ["blobs", hash, size] | ["uploads", _, "blobs", hash, size] => (false, hash, size),
        ["compressed-blobs", "zstd", hash, size] | ["uploads", _, "compressed-blobs", "zstd", hash, size] => {
            (true, hash, size)
        }
        _ => return Err(wrong()),
    };
    Ok((Digest { hash: hash.to_string(), size_bytes: size.parse().map_err(|_| wrong())? }, packed))
}

#[tonic::async_trait]
impl ByteStream for Service {
    type ReadStream = ReceiverStream<Result<ReadResponse, Status>>;

    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        let request = request.into_inner();
        self.0.enter(INSTANCE)?;
        let (digest, packed) = named(&request.resource_name)?;
        if packed && (!self.0.way.zstd || request.read_limit != 0) {
            return Err(Status::invalid_argument("not of what is compressed"));
        }
        let bytes = self.0.bytes(&digest).ok_or_else(|| Status::not_found("no such blob"))?;
        let start = usize::try_from(request.read_offset).unwrap();
        let mut part = bytes.get(start..).ok_or_else(|| Status::out_of_range("behind its end"))?.to_vec();
        if request.read_limit > 0 {
            part.truncate(request.read_limit as usize);
        }
        if packed {
            part = zstd::encode_all(&part[..], 1).unwrap();
            self.0.seen.packed_streams.fetch_add(1, Relaxed);
        }
        let stalled = self.0.way.stalled.load(Relaxed);
        let cut = once(&self.0.way.cut);
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        tokio::spawn(async move {
            let pieces = part.chunks(10_000.min(part.len() / 2 + 1));
            let half = pieces.len() / 2;
            for (at, piece) in pieces.enumerate() {
                let _ = sender.send(Ok(ReadResponse { data: piece.to_vec() })).await;
                // One that is still there says nothing now and then.
                let _ = sender.send(Ok(ReadResponse::default())).await;
                if at == half && stalled {
                    std::future::pending::<()>().await;
                }
                if at == half && cut {
                    let _ = sender.send(Err(Status::unavailable("that was enough"))).await;
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn write(
        &self,
        request: Request<Streaming<WriteRequest>>,
    ) -> Result<Response<WriteResponse>, Status> {
        let mut stream = request.into_inner();
        self.0.enter(INSTANCE)?;
        let (mut bytes, mut name) = (Vec::new(), String::new());
        let cut = once(&self.0.way.cut);
        loop {
            let Some(message) = stream.message().await? else {
                return Err(Status::invalid_argument("it has no end"));
            };
            if name.is_empty() {
                name = message.resource_name;
            }
            if message.write_offset != bytes.len() as i64 {
                return Err(Status::invalid_argument("a gap"));
            }
            bytes.extend(message.data);
            if cut {
                return Err(Status::unavailable("that was enough"));
            }
            if message.finish_write {
                break;
            }
        }
        let (digest, packed) = named(&name)?;
        let committed_size = bytes.len() as i64;
        if packed {
            self.0.seen.packed_streams.fetch_add(1, Relaxed);
            bytes = zstd::decode_all(&bytes[..]).map_err(|why| Status::invalid_argument(why.to_string()))?;
        } else {
            self.0.seen.plain_streams.fetch_add(1, Relaxed);
        }
        self.0.take(&digest, bytes)?;
        Ok(Response::new(WriteResponse { committed_size }))
    }

    async fn query_write_status(
        &self,
        _: Request<QueryWriteStatusRequest>,
    ) -> Result<Response<QueryWriteStatusResponse>, Status> {
        Err(Status::unimplemented("every write begins anew"))
    }
}
