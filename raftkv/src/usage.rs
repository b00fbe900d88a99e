//! What a run costs, as far as the system tells: memory, bytes on disk, the time of a sync.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
    time::{Duration, Instant},
};

/// Largest resident memory of this process so far, in bytes; `None` where the system does
/// not say.
pub(crate) fn peak_memory_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

/// Bytes of all files below `folder`. What vanishes meanwhile does not count.
pub(crate) fn disk_bytes(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => disk_bytes(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}

/// How long a sync takes on the disk of `folder`: the median of appending 4 KiB to a growing
/// file and making them durable.
pub(crate) fn sync_latency(folder: &Path) -> io::Result<Duration> {
    const ROUNDS: usize = 100;
    let path = folder.join("sync-probe");
    let mut file = File::create(&path)?;
    let block = [0x5A; 4096];
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        times.push(begun.elapsed());
    }
    drop(file);
    fs::remove_file(&path)?;
    times.sort_unstable();
    Ok(times[ROUNDS / 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probe_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("below")).unwrap();
        fs::write(folder.path().join("below/file"), [0; 100]).unwrap();
        sync_latency(folder.path()).unwrap();
        assert_eq!(disk_bytes(folder.path()), 100);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn memory_is_known_here() {
        assert!(peak_memory_bytes().unwrap() > 1 << 20);
    }
}
