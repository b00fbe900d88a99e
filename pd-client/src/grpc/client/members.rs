//! Which PDs there are, and which of them leads.

use std::{
    collections::BTreeMap,
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::Uri;
use hyper_util::rt::TokioIo;
use raftstore_grpc::pb::pdpb;
use raftstore_proto::ClusterId;
use tokio::net::TcpStream;
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

use crate::{
    Error, Result,
    grpc::{
        secure::{Io, SecureConnect},
        stubs::p_d_client::PDClient,
    },
};

/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// After how long without a word a PD is asked for a sign of life, and how long it may take.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(3));
/// PDs of a cluster that are remembered.
const MEMBERS_MAX: usize = 64;

/// A PD to ask.
#[derive(Clone, Debug)]
pub(super) struct Pd {
    pub(super) url: String,
    pub(super) stub: PDClient<Channel>,
}

/// What one PD says of all.
#[derive(Debug)]
struct View {
    cluster: ClusterId,
    urls: Vec<String>,
    leader: Option<String>,
}

#[derive(Debug, Default)]
struct Known {
    /// The endpoints that were given, and what was learnt since; the leader is asked first.
    urls: Vec<String>,
    leader: Option<Pd>,
    channels: BTreeMap<String, Pd>,
}

/// The PDs of a cluster, as far as they are known.
pub(super) struct Members {
    endpoints: Vec<String>,
    timeout: Duration,
    secure: Option<SecureConnect>,
    known: Mutex<Known>,
    /// One question for the leader at a time.
    asking: tokio::sync::Mutex<()>,
}

impl fmt::Debug for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Members").field("known", &*self.known()).finish_non_exhaustive()
    }
}

/// An address with a scheme. It is the same one for all: whether connections are secure is
/// not for others to say.
fn with_scheme(endpoint: &str) -> String {
    let endpoint = endpoint.trim_end_matches('/');
    let address = endpoint.strip_prefix("https://").or_else(|| endpoint.strip_prefix("http://"));
    format!("http://{}", address.unwrap_or(endpoint))
}

/// A connection to an address, made secure.
async fn dial(secure: SecureConnect, to: Uri) -> io::Result<TokioIo<Box<dyn Io>>> {
    let (Some(host), Some(port)) = (to.host(), to.port_u16()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
    stream.set_nodelay(true)?;
    Ok(TokioIo::new(secure(stream, host.to_owned()).await?))
}

fn unavailable(status: Status) -> Error {
    Error::Unavailable { source: Some(status.into()) }
}

impl Members {
    /// # Errors
    /// `Refused` for endpoints that are none, or named twice.
    pub(super) fn new(
        endpoints: &[String],
        timeout: Duration,
        secure: Option<SecureConnect>,
    ) -> Result<Self> {
        let endpoints: Vec<_> = endpoints.iter().map(|it| with_scheme(it)).collect();
        for (at, endpoint) in endpoints.iter().enumerate() {
            if Endpoint::from_shared(endpoint.clone()).is_err() {
                return Err(Error::Refused(format!("{endpoint} is no address of a PD")));
            }
            if endpoints[..at].contains(endpoint) {
                return Err(Error::Refused(format!("{endpoint} is named twice")));
            }
        }
        if endpoints.is_empty() {
            return Err(Error::Invalid("no address of a PD is given"));
        }
        let known = Known { urls: endpoints.clone(), ..Known::default() };
        Ok(Self {
            endpoints,
            timeout,
            secure,
            known: Mutex::new(known),
            asking: tokio::sync::Mutex::default(),
        })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A PD that may be there; the connection is made when it is used, and again after it
    /// was lost.
    fn pd(&self, url: &str) -> Result<Pd> {
        let mut known = self.known();
        if let Some(pd) = known.channels.get(url) {
            return Ok(pd.clone());
        }
        let endpoint = Endpoint::from_shared(url.to_owned())
            .map_err(|error| Error::Unavailable { source: Some(error.into()) })?
            .connect_timeout(self.timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEPALIVE.0)
            .keep_alive_timeout(KEEPALIVE.1)
            .keep_alive_while_idle(true);
        let channel = match self.secure.clone() {
            None => endpoint.connect_lazy(),
            Some(secure) => endpoint.connect_with_connector_lazy(tower::service_fn(move |to| {
                dial(Arc::clone(&secure), to)
            })),
        };
        let stub = PDClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
        let pd = Pd { url: url.to_owned(), stub };
        known.channels.insert(url.to_owned(), pd.clone());
        Ok(pd)
    }

    async fn view(&self, url: &str) -> Result<View> {
        let mut stub = self.pd(url)?.stub;
        let asked = stub.get_members(pdpb::GetMembersRequest::new());
        let answer = tokio::time::timeout(self.timeout, asked)
            .await
            .map_err(|_| unavailable(Status::deadline_exceeded(format!("{url} does not answer"))))?
            .map_err(unavailable)?
            .into_inner();
        let header = answer.get_header();
        if header.has_error() {
            return Err(unavailable(Status::unknown(header.get_error().message.clone())));
        }
        let cluster = ClusterId::new(header.cluster_id)
            .ok_or_else(|| unavailable(Status::data_loss(format!("{url} names no cluster"))))?;
        let urls = answer.members.iter().flat_map(|member| member.client_urls.iter());
        Ok(View {
            cluster,
            urls: urls.take(MEMBERS_MAX).map(|url| with_scheme(url)).collect(),
            leader: answer.get_leader().client_urls.first().map(|url| with_scheme(url)),
        })
    }

    /// The cluster that all endpoints that answer serve.
    ///
    /// # Errors
    /// `WrongCluster` if one of them serves another than `cluster`, or than the others;
    /// `Unavailable` if none answers.
    pub(super) async fn cluster(&self, cluster: Option<ClusterId>) -> Result<ClusterId> {
        let mut agreed = cluster;
        let mut answer = Err(Error::Unavailable { source: None });
        for endpoint in &self.endpoints {
            let view = match self.view(endpoint).await {
                Ok(view) => view,
                Err(error) => {
                    if answer.is_err() {
                        answer = Err(error);
                    }
                    continue;
                }
            };
            let ours = *agreed.get_or_insert(view.cluster);
            if view.cluster != ours {
                return Err(Error::WrongCluster { ours, theirs: view.cluster });
            }
            answer = Ok(ours);
        }
        answer
    }

    /// The leader, looked for if it is not known.
    ///
    /// # Errors
    /// `WrongCluster` if a PD serves another cluster than `cluster`; `Unavailable`.
    pub(super) async fn leader(&self, cluster: ClusterId) -> Result<Pd> {
        if let Some(pd) = self.known().leader.clone() {
            return Ok(pd);
        }
        let _alone = self.asking.lock().await;
        let urls = {
            let known = self.known();
            if let Some(pd) = known.leader.clone() {
                return Ok(pd);
            }
            known.urls.clone()
        };
        let mut last = Error::Unavailable { source: None };
        for url in urls {
            match self.view(&url).await {
                Ok(view) if view.cluster != cluster => {
                    return Err(Error::WrongCluster { ours: cluster, theirs: view.cluster });
                }
                Ok(View { urls, leader: Some(leader), .. }) => {
                    let pd = self.pd(&leader)?;
                    self.learn(urls, &pd);
                    return Ok(pd);
                }
                Ok(_) => last = unavailable(Status::unavailable("no PD leads")),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn learn(&self, urls: Vec<String>, leader: &Pd) {
        let mut known = self.known();
        known.urls = vec![leader.url.clone()];
        for url in urls.into_iter().chain(self.endpoints.iter().cloned()) {
            if !known.urls.contains(&url) {
                known.urls.push(url);
            }
        }
        let Known { urls, channels, .. } = &mut *known;
        channels.retain(|url, _| urls.contains(url));
        known.leader = Some(leader.clone());
    }

    /// Looks for the leader again before it is asked again, if it is still this one. It is
    /// asked last, since it may be gone without a sign.
    pub(super) fn doubt(&self, leader: &Pd) {
        let mut known = self.known();
        if known.leader.as_ref().is_some_and(|known| known.url == leader.url) {
            known.leader = None;
            known.urls.retain(|url| *url != leader.url);
            known.urls.push(leader.url.clone());
        }
    }
}
