//! What the operating system reports about the processor.

/// Bytes of the first core's data or unified cache of this level; 0 if the system does not report it.
pub fn cache_bytes(level: usize) -> usize {
    let read = |index: usize, name: &str| {
        let path = format!("/sys/devices/system/cpu/cpu0/cache/index{index}/{name}");
        std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
    };
    let found = (0..8)
        .find(|index| read(*index, "level") == level.to_string() && read(*index, "type") != "Instruction");
    let Some(size) = found.map(|index| read(index, "size")) else { return 0 };
    let (digits, unit) = size.split_at(size.trim_end_matches(char::is_alphabetic).len());
    let scale = match unit {
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        _ => 1,
    };
    digits.parse::<usize>().unwrap_or(0) * scale
}

/// The vector features that the system reports.
pub fn features() -> Vec<String> {
    const PREFIXES: [&str; 6] = ["avx", "fma", "f16c", "amx", "asimd", "bf16"];
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line =
        text.lines().find(|line| line.starts_with("flags") || line.starts_with("Features")).unwrap_or("");
    let flags = line.split_once(':').map_or("", |(_, flags)| flags);
    let wanted = |flag: &&str| PREFIXES.iter().any(|prefix| flag.starts_with(prefix));
    flags.split_whitespace().filter(wanted).map(str::to_owned).collect()
}
