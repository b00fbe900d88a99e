//! Where stores are, as PD says.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use parking_lot::Mutex;
use pd_client::PdClient;
use raftstore_proto::StoreId;
use tokio::{
    runtime::Handle,
    time::{Instant, timeout},
};
use transport_traits::StoreResolver;

/// A store that PD does not know, or that did not answer, is asked about again after this
/// time at the earliest.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// PD has so long to answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Default)]
struct Known {
    address: Option<String>,
    /// PD is asked at the next occasion.
    is_stale: bool,
    is_being_asked: bool,
    asked: Option<Instant>,
}

#[derive(Debug, Default)]
struct Figures {
    lookups: u64,
    failures: u64,
}

#[derive(Default)]
struct Cache {
    stores: BTreeMap<StoreId, Known>,
    figures: Figures,
}

/// Finds stores through PD and remembers where they are, until they do not answer there.
///
/// An address that is in doubt is given until PD has named another: a store that is being
/// restarted mostly comes back to where it was. Questions run on the runtime of whoever
/// asks, which has to be tokio's; elsewhere only what is remembered is given.
pub struct PdResolver {
    pd: Arc<dyn PdClient>,
    cache: Arc<Mutex<Cache>>,
}

impl PdResolver {
    /// Asks `pd`.
    #[must_use]
    pub fn new(pd: Arc<dyn PdClient>) -> Self {
        Self { pd, cache: Arc::default() }
    }

    /// How often PD was asked, and how often it gave no address.
    #[must_use]
    pub fn lookups(&self) -> (u64, u64) {
        let cache = self.cache.lock();
        (cache.figures.lookups, cache.figures.failures)
    }

    fn ask(&self, store: StoreId, runtime: &Handle) {
        let (pd, cache) = (Arc::clone(&self.pd), Arc::clone(&self.cache));
        runtime.spawn(async move {
            let answer = timeout(ASK_TIMEOUT, pd.store(store)).await;
            let mut cache = cache.lock();
            cache.figures.lookups += 1;
            let known = cache.stores.entry(store).or_default();
            known.is_being_asked = false;
            match answer {
                Ok(Ok(info)) => {
                    known.is_stale = false;
                    known.address = Some(info.address);
                }
                Ok(Err(pd_client::Error::StoreNotFound(_))) => {
                    // Gone for good, or not announced yet.
                    known.address = None;
                    cache.figures.failures += 1;
                }
                Ok(Err(error)) => {
                    tracing::warn!(%store, %error, "PD does not say where a store is");
                    cache.figures.failures += 1;
                }
                Err(_) => {
                    tracing::warn!(%store, "PD does not say where a store is in time");
                    cache.figures.failures += 1;
                }
            }
        });
    }
}

impl StoreResolver for PdResolver {
    fn resolve(&self, store: StoreId) -> Option<String> {
        let mut cache = self.cache.lock();
        let known = cache.stores.entry(store).or_default();
        let is_wanted = known.is_stale || known.address.is_none();
        let may_ask =
            !known.is_being_asked && known.asked.is_none_or(|asked| asked.elapsed() >= ASK_AGAIN);
        if is_wanted
            && may_ask
            && let Ok(runtime) = Handle::try_current()
        {
            known.is_being_asked = true;
            known.asked = Some(Instant::now());
            self.ask(store, &runtime);
        }
        known.address.clone()
    }

    fn refresh(&self, store: StoreId) {
        if let Some(known) = self.cache.lock().stores.get_mut(&store) {
            known.is_stale = true;
        }
    }
}

impl fmt::Debug for PdResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cache = self.cache.lock();
        f.debug_struct("PdResolver")
            .field("stores", &cache.stores.len())
            .field("figures", &cache.figures)
            .finish_non_exhaustive()
    }
}
