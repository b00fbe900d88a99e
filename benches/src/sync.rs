//! What a disk takes for the least that a durable write can be: the yardstick of every figure
//! that depends on it.

use std::{fs::File, io, io::Write as _, path::Path, time::Instant};

use crate::percentiles::Percentiles;

/// One writer appends 4 KiB to a growing file and has it made durable, so many times.
///
/// # Errors
/// If the file cannot be written.
pub fn sync_latency(folder: &Path, times: usize) -> io::Result<Percentiles> {
    let path = folder.join("sync-latency");
    let mut file = File::create(&path)?;
    let block = [0x5A; 4 << 10];
    let mut taken = Percentiles::default();
    for _ in 0..times {
        let begun = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        taken.add(begun.elapsed());
    }
    drop(file);
    std::fs::remove_file(path)?;
    Ok(taken)
}
