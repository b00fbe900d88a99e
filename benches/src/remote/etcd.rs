//! etcd's key-value service, as much of it as is measured.

use bytes::Bytes;
use tonic::{
    Request,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;
use transport_traits::BoxError;

use crate::{Ask, Options};

#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PutResponse {}

/// Linearizable, as none of its other fields is set.
#[derive(Clone, PartialEq, prost::Message)]
struct RangeRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RangeResponse {
    #[prost(message, repeated, tag = "2")]
    rows: Vec<Row>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Row {
    #[prost(bytes = "bytes", tag = "5")]
    value: Bytes,
}

pub(crate) struct Cluster {
    channels: Vec<Channel>,
}

impl Cluster {
    pub(crate) fn connect(options: &Options) -> Result<Self, BoxError> {
        let mut channels = Vec::new();
        for _ in 0..options.connections {
            for endpoint in &options.endpoints {
                channels.push(Endpoint::from_shared(format!("http://{endpoint}"))?.connect_lazy());
            }
        }
        match channels.is_empty() {
            true => Err("no endpoints".into()),
            false => Ok(Self { channels }),
        }
    }

    pub(crate) async fn ask(&self, client: u64, ask: &Ask) -> Result<(), BoxError> {
        let at = usize::try_from(client)? % self.channels.len();
        let mut grpc = Grpc::new(self.channels[at].clone());
        grpc.ready().await?;
        match ask {
            Ask::Put(key, value) => {
                let request = PutRequest { key: key.clone(), value: value.clone() };
                let path = PathAndQuery::from_static("/etcdserverpb.KV/Put");
                let codec = ProstCodec::<PutRequest, PutResponse>::default();
                grpc.unary(Request::new(request), path, codec).await?;
            }
            Ask::Get(key) => {
                let request = RangeRequest { key: key.clone() };
                let path = PathAndQuery::from_static("/etcdserverpb.KV/Range");
                let codec = ProstCodec::<RangeRequest, RangeResponse>::default();
                let answer = grpc.unary(Request::new(request), path, codec).await?.into_inner();
                if answer.rows.is_empty() {
                    return Err("the key is not there".into());
                }
            }
        }
        Ok(())
    }
}
