//! raftkv, by its own client: requests one by one, or many in a message.

use std::time::{Duration, Instant};

use raftkv_client::{Client, ClientOptions};
use transport_traits::BoxError;

use crate::{Ask, Options, Target, key};

/// Longest time for cutting the keys into regions.
const PATIENCE: Duration = Duration::from_secs(120);

/// Longest wait for leaders to be spread. Where they are not, the figures show it.
const SPREAD: Duration = Duration::from_secs(20);

pub(crate) struct Cluster(Client);

impl Cluster {
    /// Cuts the keys into regions, and waits until each node leads its share.
    pub(crate) async fn connect(options: &Options) -> Result<Self, BoxError> {
        let how = ClientOptions {
            batched: options.target == Target::RaftkvBatch,
            connections: options.connections,
            patience: PATIENCE,
            ..ClientOptions::default()
        };
        let client = Client::connect(&options.endpoints, how).await?;
        for part in 1..options.regions {
            client.split(key(options.keys * part / options.regions)).await?;
        }
        let begun = Instant::now();
        loop {
            let led = client.leaders().await?;
            let fair = options.regions / (led.len() as u64 + 1);
            let is_fair = led.values().sum::<u64>() >= options.regions
                && led.values().all(|regions| *regions >= fair);
            if is_fair || begun.elapsed() > SPREAD {
                return Ok(Self(client));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    pub(crate) async fn ask(&self, ask: &Ask) -> Result<(), BoxError> {
        match ask {
            Ask::Put(key, value) => Ok(self.0.put(key.clone(), value.clone()).await?),
            Ask::Get(key) => match self.0.get(key.clone()).await? {
                Some(_) => Ok(()),
                None => Err("the key is not there".into()),
            },
        }
    }
}
