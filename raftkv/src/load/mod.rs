//! `raftkv load` and `raftkv bench`: fill a cluster with records, and have clients work on
//! them.

mod workload;

use std::{
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use raftkv_client::{Client, ClientError, ClientOptions};
use rand::{SeedableRng as _, rngs::SmallRng};

use self::workload::{Ask, Choice, Mix, Workload, key, value};

/// What both commands have in common.
#[derive(Debug, clap::Args)]
pub(crate) struct ClusterArguments {
    /// Addresses of the placement driver, with commas between
    #[arg(long, value_name = "ADDRESSES", value_delimiter = ',', default_value = "127.0.0.1:2379")]
    pd: Vec<String>,
    /// Clients, each with one request under way
    #[arg(long, value_name = "N", default_value_t = 64,
          value_parser = clap::value_parser!(u32).range(1..=4_096))]
    clients: u32,
    /// Records
    #[arg(long, value_name = "N", default_value_t = 100_000,
          value_parser = clap::value_parser!(u64).range(1..))]
    records: u64,
    /// Bytes of a value
    #[arg(long, value_name = "BYTES", default_value_t = 256,
          value_parser = clap::value_parser!(u32).range(0..=1_048_576))]
    value_bytes: u32,
    /// Connections to each store
    #[arg(long, value_name = "N", default_value_t = 4,
          value_parser = clap::value_parser!(u16).range(1..=256))]
    connections: u16,
    /// Send many commands in a message
    #[arg(long)]
    batch: bool,
    /// Decides keys, values and the order of requests
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Give the figures as JSON
    #[arg(long)]
    json: bool,
}

/// Fills a cluster.
#[derive(Debug, clap::Args)]
pub(crate) struct LoadArguments {
    #[command(flatten)]
    cluster: ClusterArguments,
}

/// Works on records that are there.
#[derive(Debug, clap::Args)]
pub(crate) struct BenchArguments {
    #[command(flatten)]
    cluster: ClusterArguments,
    /// The mix of requests, as YCSB names it
    #[arg(long, value_enum, default_value_t = Mix::A)]
    workload: Mix,
    /// How keys are chosen; by default as the workload has it
    #[arg(long, value_enum)]
    keys: Option<Choice>,
    /// How long
    #[arg(long, value_name = "SECONDS", default_value_t = 10,
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
}

/// Stores every record once.
pub(crate) fn load(arguments: &LoadArguments) -> ExitCode {
    let cluster = &arguments.cluster;
    finish(cluster, run(cluster, |client| async move { fill(cluster, client).await }))
}

/// Has clients work for some time.
pub(crate) fn bench(arguments: &BenchArguments) -> ExitCode {
    let cluster = &arguments.cluster;
    finish(cluster, run(cluster, |client| async move { work(arguments, client).await }))
}

fn run<F: Future<Output = Result<Figures, ClientError>>>(
    arguments: &ClusterArguments,
    with: impl FnOnce(Client) -> F,
) -> Result<Figures, String> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("no threads: {error}"))?;
    let options = ClientOptions {
        batched: arguments.batch,
        connections: usize::from(arguments.connections),
        ..ClientOptions::default()
    };
    runtime.block_on(async {
        let client = Client::connect(&arguments.pd, options).await;
        with(client.map_err(|error| error.to_string())?).await.map_err(|error| error.to_string())
    })
}

fn finish(arguments: &ClusterArguments, figures: Result<Figures, String>) -> ExitCode {
    match figures {
        Ok(figures) => {
            let text = if arguments.json { figures.json() } else { figures.table() };
            let _ = write!(io::stdout(), "{text}");
            if figures.failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) }
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "raftkv: {error}");
            ExitCode::from(2)
        }
    }
}

/// Nanoseconds of requests, by their kind.
struct Figures {
    kinds: Vec<Histogram<u64>>,
    failed: u64,
    /// What the last one failed with.
    last: Option<String>,
    time: Duration,
}

impl Figures {
    fn new() -> Self {
        let hour = 3_600_000_000_000;
        let one = || Histogram::new_with_bounds(1, hour, 3).expect("the bounds and digits fit");
        let kinds = (0..Ask::KINDS.len()).map(|_| one()).collect();
        Self { kinds, failed: 0, last: None, time: Duration::ZERO }
    }

    fn add(&mut self, kind: usize, latency: Duration) {
        self.kinds[kind].saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    fn fail(&mut self, error: &ClientError) {
        self.failed += 1;
        self.last = Some(error.to_string());
    }

    fn merge(&mut self, other: Self) {
        for (mine, theirs) in self.kinds.iter_mut().zip(other.kinds) {
            mine.add(theirs).expect("all have the same bounds");
        }
        self.failed += other.failed;
        self.last = other.last.or_else(|| self.last.take());
    }

    fn present(&self) -> impl Iterator<Item = (&'static str, &Histogram<u64>)> {
        Ask::KINDS.into_iter().zip(&self.kinds).filter(|(_, kind)| !kind.is_empty())
    }

    fn total(&self) -> u64 {
        self.kinds.iter().map(Histogram::len).sum()
    }

    fn per_second(&self, count: u64) -> f64 {
        count as f64 / self.time.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    fn table(&self) -> String {
        let mut out = format!(
            "{} requests in {:.1} s: {:.0} per second, {} failed\n",
            self.total(),
            self.time.as_secs_f64(),
            self.per_second(self.total()),
            self.failed,
        );
        if let Some(last) = &self.last {
            out += &format!("the last failed with: {last}\n");
        }
        for (name, kind) in self.present() {
            let ms = |quantile| kind.value_at_quantile(quantile) as f64 / 1e6;
            out += &format!(
                "{name:>7}: {:>9.0} per second, p50 {:.3} ms, p90 {:.3} ms, p99 {:.3} ms, p99.9 {:.3} ms, max {:.3} ms\n",
                self.per_second(kind.len()),
                ms(0.5),
                ms(0.9),
                ms(0.99),
                ms(0.999),
                ms(1.0),
            );
        }
        out
    }

    fn json(&self) -> String {
        let kinds: Vec<String> = self
            .present()
            .map(|(name, kind)| {
                let us = |quantile| kind.value_at_quantile(quantile) / 1_000;
                format!(
                    "  \"{name}\": {{\"requests\": {}, \"per_second\": {:.1}, \"p50_us\": {}, \"p90_us\": {}, \
                     \"p99_us\": {}, \"p999_us\": {}, \"max_us\": {}}}",
                    kind.len(),
                    self.per_second(kind.len()),
                    us(0.5),
                    us(0.9),
                    us(0.99),
                    us(0.999),
                    us(1.0),
                )
            })
            .collect();
        format!(
            "{{\n  \"requests\": {},\n  \"failed\": {},\n  \"seconds\": {:.3},\n  \"per_second\": {:.1}{}{}\n}}\n",
            self.total(),
            self.failed,
            self.time.as_secs_f64(),
            self.per_second(self.total()),
            if kinds.is_empty() { "" } else { ",\n" },
            kinds.join(",\n"),
        )
    }
}

fn bar(arguments: &ClusterArguments, length: u64, template: &str) -> ProgressBar {
    let bar = ProgressBar::new(length);
    if arguments.json || !io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

async fn fill(arguments: &ClusterArguments, client: Client) -> Result<Figures, ClientError> {
    let bar = bar(arguments, arguments.records, "{bar:40} {pos}/{len} records, {per_sec}");
    let next = Arc::new(AtomicU64::new(0));
    let begun = Instant::now();
    let tasks: Vec<_> = (0..u64::from(arguments.clients))
        .map(|number| {
            let (client, next, bar) = (client.clone(), Arc::clone(&next), bar.clone());
            let (records, bytes) = (arguments.records, arguments.value_bytes as usize);
            let mut lots = SmallRng::seed_from_u64(arguments.seed.wrapping_add(number));
            tokio::spawn(async move {
                let mut figures = Figures::new();
                loop {
                    let record = next.fetch_add(1, Ordering::Relaxed);
                    if record >= records {
                        return figures;
                    }
                    let sent = Instant::now();
                    match client.put(key(record), value(bytes, &mut lots)).await {
                        Ok(()) => figures.add(Ask::Insert(record).kind(), sent.elapsed()),
                        Err(error) => figures.fail(&error),
                    }
                    bar.inc(1);
                }
            })
        })
        .collect();
    Ok(gathered(tasks, begun, &bar).await)
}

async fn work(arguments: &BenchArguments, client: Client) -> Result<Figures, ClientError> {
    let cluster = &arguments.cluster;
    let bar = bar(cluster, arguments.seconds, "{bar:40} {pos}/{len} s");
    let workload = Workload::new(arguments.workload, arguments.keys, cluster.records);
    let (workload, is_over) = (Arc::new(workload), Arc::new(AtomicBool::new(false)));
    let begun = Instant::now();
    let tasks: Vec<_> = (0..u64::from(cluster.clients))
        .map(|number| {
            let (client, workload) = (client.clone(), Arc::clone(&workload));
            let (is_over, bytes) = (Arc::clone(&is_over), cluster.value_bytes as usize);
            let mut lots = SmallRng::seed_from_u64(cluster.seed.wrapping_add(number));
            tokio::spawn(async move {
                let mut figures = Figures::new();
                while !is_over.load(Ordering::Relaxed) {
                    let ask = workload.draw(&mut lots);
                    let sent = Instant::now();
                    match answer(&client, &ask, bytes, &mut lots).await {
                        Ok(()) => figures.add(ask.kind(), sent.elapsed()),
                        Err(error) => figures.fail(&error),
                    }
                }
                figures
            })
        })
        .collect();
    for _ in 0..arguments.seconds {
        tokio::time::sleep(Duration::from_secs(1)).await;
        bar.inc(1);
    }
    is_over.store(true, Ordering::Relaxed);
    Ok(gathered(tasks, begun, &bar).await)
}

async fn answer(
    client: &Client,
    ask: &Ask,
    bytes: usize,
    lots: &mut SmallRng,
) -> Result<(), ClientError> {
    match ask {
        Ask::Read(number) => client.get(key(*number)).await.map(drop),
        Ask::Update(number) | Ask::Insert(number) => {
            client.put(key(*number), value(bytes, lots)).await
        }
        Ask::Scan(number, rows) => client.scan(key(*number), *rows).await.map(drop),
        Ask::Modify(number) => {
            client.get(key(*number)).await?;
            client.put(key(*number), value(bytes, lots)).await
        }
    }
}

async fn gathered(
    tasks: Vec<tokio::task::JoinHandle<Figures>>,
    begun: Instant,
    bar: &ProgressBar,
) -> Figures {
    let mut figures = Figures::new();
    for task in tasks {
        // A task that panicked has counted nothing.
        match task.await {
            Ok(of_task) => figures.merge(of_task),
            Err(_) => figures.failed += 1,
        }
    }
    figures.time = begun.elapsed();
    bar.finish_and_clear();
    figures
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_many_tasks_add_up() {
        let mut all = Figures::new();
        for task in 1..=4 {
            let mut of_task = Figures::new();
            of_task.add(0, Duration::from_millis(task));
            of_task.add(1, Duration::from_millis(10));
            of_task.fail(&ClientError::Refused { what: "too large".to_owned() });
            all.merge(of_task);
        }
        all.time = Duration::from_secs(2);

        assert_eq!((all.total(), all.failed), (8, 4));
        let json = all.json();
        assert!(json.contains("\"requests\": 8,\n  \"failed\": 4"), "{json}");
        assert!(json.contains("\"read\": {\"requests\": 4, \"per_second\": 2.0"), "{json}");
        assert!(!json.contains("scan"), "{json}");
        let table = all.table();
        assert!(table.contains("the last failed with: refused: too large"), "{table}");
    }
}
