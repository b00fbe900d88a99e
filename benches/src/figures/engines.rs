//! Engines one against another, and each against the layer below it.

use std::time::{Duration, Instant};

use transport_traits::BoxError;

use crate::{
    LogFactory,
    paper::{Chart, Paper, short},
    work::{Case, recovery},
};

/// Elements per second of one case, by engine.
#[derive(Clone, Debug)]
pub struct Rates {
    /// The case.
    pub name: String,
    /// In the order of engines; `None` where one has no such case.
    pub rates: Vec<Option<f64>>,
}

/// How long a case is measured, and how often.
#[derive(Clone, Copy, Debug)]
pub struct Care {
    /// One slice.
    pub slice: Duration,
    /// Slices of each engine, in turn with those of the others.
    pub rounds: usize,
}

/// Measures the same cases on several engines, in turns, so that a slow minute of the machine
/// slows all of them. Gives the median of each.
///
/// # Errors
/// If an engine fails.
pub fn side_by_side(engines: &[(&str, Vec<Case>)], care: Care) -> Result<Vec<Rates>, BoxError> {
    let Some((_, first)) = engines.first() else { return Ok(Vec::new()) };
    first.iter().map(|case| one_case(engines, &case.name, care)).collect()
}

fn one_case(engines: &[(&str, Vec<Case>)], name: &str, care: Care) -> Result<Rates, BoxError> {
    let cases: Vec<Option<&Case>> =
        engines.iter().map(|(_, cases)| cases.iter().find(|case| case.name == name)).collect();
    let mut runs = Vec::new();
    for (case, (engine, _)) in cases.iter().zip(engines) {
        let failed = |error| format!("{engine}, {name}: {error}");
        runs.push(match case {
            Some(case) => Some((case.elements, case.start().map_err(failed)?)),
            None => None,
        });
    }
    let mut seen = vec![Vec::new(); runs.len()];
    for round in 0..=care.rounds {
        for ((run, seen), (engine, _)) in runs.iter_mut().zip(&mut seen).zip(engines) {
            let Some((elements, run)) = run else { continue };
            let (begun, mut count) = (Instant::now(), 0);
            while begun.elapsed() < care.slice {
                run().map_err(|error| format!("{engine}, {name}: {error}"))?;
                count += *elements;
            }
            // The first round warms up.
            if round > 0 {
                seen.push(count as f64 / begun.elapsed().as_secs_f64());
            }
        }
    }
    Ok(Rates { name: name.to_owned(), rates: seen.into_iter().map(median).collect() })
}

/// The value in the middle, if there is any.
pub(super) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// Engines side by side, as a table and a chart.
///
/// # Errors
/// If an engine fails.
pub fn engines(
    paper: &mut Paper,
    chart: (&str, &str),
    engines: &[(&str, Vec<Case>)],
    care: Care,
) -> Result<(), BoxError> {
    let rates = side_by_side(engines, care)?;
    let mut head = vec!["per second"];
    head.extend(engines.iter().map(|(name, _)| *name));
    let cell = |rate: &Option<f64>| rate.map_or_else(|| "-".to_owned(), short);
    let rows: Vec<Vec<String>> = rates
        .iter()
        .map(|of| [of.name.clone()].into_iter().chain(of.rates.iter().map(cell)).collect())
        .collect();
    paper.table(&head, &rows);
    let bars = rates
        .iter()
        .filter(|of| of.name.contains("synced"))
        .flat_map(|of| {
            let bar = |(rate, (engine, _)): (&Option<f64>, &(&str, Vec<Case>))| {
                rate.map(|rate| (of.name.clone(), (*engine).to_owned(), rate))
            };
            of.rates.iter().zip(engines).filter_map(bar).collect::<Vec<_>>()
        })
        .collect();
    let (name, title) = chart;
    paper.chart(Chart { name: name.to_owned(), title: title.to_owned(), bars });
    Ok(())
}

/// Our layer against what is below it: rates and their ratio, case by case.
///
/// # Errors
/// If an engine fails.
pub fn adapter(
    paper: &mut Paper,
    name: &str,
    ours: Vec<Case>,
    raw: Vec<Case>,
    care: Care,
) -> Result<(), BoxError> {
    // The raw crate's cases are those of both.
    let rates = side_by_side(&[("raw", raw), ("ours", ours)], care)?;
    let rows: Vec<Vec<String>> = rates
        .iter()
        .filter_map(|of| {
            let (raw, ours) = (of.rates[0]?, of.rates[1]?);
            Some(vec![of.name.clone(), short(raw), short(ours), format!("{:.2}", ours / raw)])
        })
        .collect();
    paper.table(&[name, "raw, per second", "ours, per second", "ours / raw"], &rows);
    Ok(())
}

/// How long logs of some sizes take to open again.
///
/// # Errors
/// If a log fails.
pub fn recoveries<F: LogFactory>(rows: &mut Vec<Vec<String>>) -> Result<(), BoxError> {
    for (regions, entries) in [(1_000, 100), (1_000, 1_000), (10_000, 50)] {
        let mut taken = Vec::new();
        for _ in 0..3 {
            taken.extend(recovery::<F>(regions, entries)?.map(|took| took.as_secs_f64()));
        }
        let Some(seconds) = median(taken) else { return Ok(()) };
        rows.push(vec![
            F::NAME.to_owned(),
            short(regions as f64),
            short(entries as f64),
            format!("{:.0}", seconds * 1e3),
        ]);
    }
    Ok(())
}
