//! What this process costs, as Linux counts it.

use std::{fs, time::Duration};

use transport_traits::BoxError;

/// Memory of this process in the machine's RAM.
///
/// # Errors
/// Where there is no /proc.
pub fn memory_kib() -> Result<u64, BoxError> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let figure = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(figure.ok_or("no VmRSS")?.trim().parse()?)
}

/// Time this process has spent on CPUs, to a hundredth of a second.
///
/// # Errors
/// Where there is no /proc.
pub fn cpu_time() -> Result<Duration, BoxError> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    // The name of the program, in brackets, may hold spaces.
    let fields: Vec<&str> =
        stat.rsplit_once(')').ok_or("no name in stat")?.1.split_whitespace().collect();
    let (user, system): (u64, u64) = (fields[11].parse()?, fields[12].parse()?);
    Ok(Duration::from_millis((user + system) * 10))
}

/// Bytes that this process has caused to be written to storage.
///
/// # Errors
/// Where there is no /proc.
pub fn written_bytes() -> Result<u64, BoxError> {
    let io = fs::read_to_string("/proc/self/io")?;
    let figure = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    Ok(figure.ok_or("no write_bytes")?.trim().parse()?)
}
