//! Running a test at every instruction-set level of the machine, and failing when one is missing.

use core::fmt::Display;

/// The environment variable with the names of the levels that must run, separated by commas; others do not run. Without it
/// all levels of the machine run.
pub const EXPECT_VARIABLE: &str = "EXPECT_ISA";

/// Calls `test` for each level, prints which ran, and fails if one named in [`EXPECT_VARIABLE`] did not.
///
/// # Panics
/// When an expected level is not among `levels`, or none is to run.
pub fn for_each_level<L: Display>(levels: impl IntoIterator<Item = L>, test: impl FnMut(L)) {
    run(&std::env::var(EXPECT_VARIABLE).unwrap_or_default(), levels, test);
}

/// [`for_each_level`] for the levels in the list `expected`, or for all if it names none.
fn run<L: Display>(expected: &str, levels: impl IntoIterator<Item = L>, mut test: impl FnMut(L)) {
    let names = || expected.split(',').map(str::trim).filter(|name| !name.is_empty());
    let mut ran = Vec::new();
    for level in levels {
        let name = level.to_string();
        if names().next().is_none() || names().any(|expected| expected == name) {
            println!("level {name}");
            test(level);
            ran.push(name);
        }
    }
    let missing: Vec<_> = names().filter(|name| !ran.iter().any(|ran| ran == name)).collect();
    assert!(missing.is_empty(), "{EXPECT_VARIABLE}={expected}, but {missing:?} did not run (ran: {ran:?})");
    assert!(!ran.is_empty(), "no level ran");
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEVELS: [&str; 3] = ["scalar", "avx2", "avx512"];

    #[test]
    fn the_expected_levels_run_and_no_others() {
        for (expected, ran) in
            [("", &LEVELS[..]), (" ,", &LEVELS[..]), ("avx2, scalar", &LEVELS[..2]), ("avx512", &LEVELS[2..])]
        {
            let mut found = Vec::new();
            run(expected, LEVELS, |level| found.push(level));
            assert_eq!(found, ran);
        }
    }

    #[test]
    #[should_panic(expected = "[\"avx\"] did not run")]
    fn an_expected_level_that_did_not_run_is_an_error() {
        run("scalar,avx512,avx", LEVELS, |_| {});
    }

    #[test]
    #[should_panic(expected = "no level ran")]
    fn running_no_level_is_an_error() {
        run("", Vec::<String>::new(), |_| {});
    }
}
